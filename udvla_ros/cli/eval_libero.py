"""``udvla eval --suite libero_...``: success in LIBERO."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what only LIBERO's suites take."""
    parser.add_argument("--tasks", default="all", help="of a LIBERO suite: numbers, such as 0,3-5 (default: all)")
    parser.add_argument(
        "--control", default="none",
        help="LIBERO: no-image (the policy sees grey) or swapped-words (it is told another task of the scene)",
    )  # fmt: skip
    parser.add_argument(
        "--faces", type=int, help="LIBERO: faces of a mesh in pictures (default 1000); 0: as published, 5 times slower"
    )


def run(args: argparse.Namespace, decode: dict[str, Any], runtime: dict[str, Any]) -> int:
    """Measure, print a table, and write ``report.json``; run again with the same --out, it goes on."""
    from udvla_ros.resources import roots
    from udvla_ros.sim.libero.install import enter

    enter(roots()[0])
    from tqdm import tqdm

    from udvla_ros.evaluation import report
    from udvla_ros.evaluation.libero import suite
    from udvla_ros.sim.libero.suites import chosen
    from udvla_ros.sim.libero.thin import FACES

    numbers = tuple(task.index for task in chosen(args.suite, args.tasks))
    faces = FACES if args.faces is None else args.faces
    options = suite.Options(
        args.suite, numbers, args.bundle, args.episodes or 50, args.control, args.execute or 0, args.seed, faces,
        device=args.device, threads=args.threads, decode=decode, runtime=runtime,
    )  # fmt: skip
    suite.check(options)
    identity = suite.identity(options)
    folder = report.run_folder("eval", args.out)
    print(f"episodes are kept in {folder}; after a kill, go on with: --out {folder}", flush=True)
    bar = tqdm(total=len(numbers) * options.states, desc=args.suite, unit="ep", mininterval=0.5)
    good = 0

    def done(result: Any) -> None:
        nonlocal good
        good += result.success
        bar.set_postfix_str(f"{good} succeeded")
        bar.update()

    rows = suite.run_suite(options, folder, args.workers, done)
    bar.close()
    result = suite.summarise(options, rows, identity)
    result["command"] = report.command_line()
    written = report.write_report(folder / "report.json", result)
    if args.json:
        report.write_report(args.json, result)
    print(table(result))
    print(f"report: {args.json or Path(written)}")
    return 0


def table(result: dict[str, Any]) -> str:
    """Return what people read of a report."""
    lines = [f"{result['suite']}   {result['policy']['name']}   control: {result['control']}"]
    for name, section in [*result["tasks"].items(), ("all", {"sentence": "", **result["all"]})]:
        low, high = section["ci95"]
        steps = f"{section['mean_steps']:.0f} steps" if section["mean_steps"] else ""
        lines.append(
            f"{name:>3} {section['successes']:3}/{section['episodes']:<3} {100 * section['rate']:5.1f}% "
            f"[{100 * low:.1f}, {100 * high:.1f}]   {steps:9} {section['sentence']}"
        )
        if said := section.get("did_what_was_said"):
            low, high = said["ci95"]
            lines.append(f"    {said['successes']:3} did what was said instead [{100 * low:.1f}, {100 * high:.1f}]")
        if section["refused_chunks"]:
            lines.append(f"    {section['refused_chunks']} chunks refused")
    lines.append(f"{result['steps_per_second']} control steps a second and worker, pictures and policy included")
    return "\n".join(lines)
