"""``udvla bench safety``: what the arm's side costs per message, and how smooth chunks follow each other."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from udvla_ros.cli.data import positive

if TYPE_CHECKING:
    from udvla_ros.motion.stitch import StitchOptions
    from udvla_ros.proving.bench.safety_bench import SafetyReport

SMOOTH = 1.5  # greatest jerk at seams, in units of the jerk inside chunks
WARM = 20  # chunks before any is timed


def register(kinds: argparse._SubParsersAction) -> None:
    """Add ``safety`` to the subcommands of ``bench``."""
    parser = kinds.add_parser(
        "safety",
        help="time the safety filter and measure the seams between chunks",
        description="A made-up policy sends chunks to the arbiter, without ROS and without a simulator. Exit code 1 "
        f"where p99 of a message is above the budget, the jerk at seams above {SMOOTH} times that inside chunks, or a "
        "limit was exceeded. Time it on a quiet machine.",
    )
    parser.add_argument(
        "--robot", nargs="+", default=["ur5e_sim"], metavar="ROBOT", help="robot files (default: ur5e_sim)"
    )
    parser.add_argument("--messages", type=positive, default=300, help="chunks per robot (default: %(default)s)")
    parser.add_argument("--latency", type=float, default=0.3, help="s that inference takes (default: %(default)s)")
    parser.add_argument("--step", type=float, help="m the policy goes in 0.1 s (default: 3%% of the TCP speed limit)")
    parser.add_argument("--blend", type=float, help="s (default: as in config/arbiter_node.yaml)")
    parser.add_argument("--frozen", type=float, help="s (default: as in config/arbiter_node.yaml)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--budget-ms", type=float, default=1.0, help="for p99 of a message (default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: runs/bench-safety/<time>")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the report there")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure each robot, print a table, draw. Returns 1 where one fails."""
    import gc

    from tqdm import tqdm

    from udvla_ros.errors import ConfigError
    from udvla_ros.evaluation import report
    from udvla_ros.motion.robot import RobotDescription
    from udvla_ros.proving.bench import safety_bench, safety_plot, tcp_tracking

    if not 0.02 <= args.latency <= 0.6:
        raise ConfigError(f"--latency {args.latency:g}: chunks of 0.8 s follow each other every 0.02 to 0.6 s")
    options, robots = shipped(args.blend, args.frozen), [RobotDescription.load(name) for name in args.robot]
    folder, results = report.run_folder("bench-safety", args.out), {}
    for robot in robots:
        safety_bench.measure(robot, WARM, args.latency, args.seed, options=options, step=args.step)
        gc.collect()
        gc.freeze()  # as the arbiter's process does: what is loaded is not looked through again
        with tqdm(total=args.messages, desc=robot.name, unit="chunk") as bar:
            results[robot.name] = safety_bench.measure(
                robot, args.messages, args.latency, args.seed, bar.update, options, args.step
            )
        gc.unfreeze()
    written: dict[str, Any] = {
        "robots": {}, "tcp_tracking": {}, "budget_ms": args.budget_ms, "latency_s": args.latency,
        "command": report.command_line(),
    }  # fmt: skip
    for robot, result in zip(robots, results.values(), strict=True):
        failures = faults(result, args.budget_ms)
        written["robots"][robot.name] = {**result.as_dict(), "failures": failures}
        print(table(robot.name, result, failures))
        if len(robot.joints) >= 6:
            tracked = tcp_tracking.track(robot, seed=args.seed).as_dict()
            written["tcp_tracking"][robot.name] = tracked
            print(
                "  TCP deltas        median {median_mm:.2f} mm, worst {worst_mm:.2f} mm, {worst_degrees:.2f} degrees "
                "off their sum, over {way_m:.1f} m at up to {fastest_m_s:.2f} m/s".format(**tracked)
            )
        print(f"picture: {safety_plot.draw(folder / f'{robot.name}.png', robot, result, args.budget_ms)}")
    written["passed"] = not any(robot["failures"] for robot in written["robots"].values())
    path = report.write_report(folder / "report.json", written)
    if args.json:
        path = report.write_report(args.json, written)
    print(f"report: {path}")
    return 0 if written["passed"] else 1


def shipped(blend: float | None, frozen: float | None) -> StitchOptions:
    """Return the options of joining that the arbiter is shipped with, or those given."""
    from dataclasses import fields

    import yaml

    from udvla_ros import resources
    from udvla_ros.motion.stitch import StitchOptions

    (node,) = yaml.safe_load(resources.find("config/arbiter_node.yaml").read_text()).values()
    values = {**node["ros__parameters"], **{k: v for k, v in (("blend", blend), ("frozen", frozen)) if v is not None}}
    return StitchOptions(**{f.name: values[f.name] for f in fields(StitchOptions) if f.name in values})


def faults(result: SafetyReport, budget_ms: float) -> list[str]:
    """Return what is not as it must be, in words."""
    found = []
    if not result.offer_ms["p99"] <= budget_ms:
        found.append(f"p99 of a message is {result.offer_ms['p99']:.2f} ms, above {budget_ms:g} ms")
    ratio = result.seams["stitched"]["ratio"]
    if ratio is not None and not ratio <= SMOOTH:
        found.append(f"jerk at seams is {ratio:.2f} times that inside chunks, above {SMOOTH}")
    if not max(result.worst.values()) <= 1.0:
        found.append(f"a limit was exceeded: {result.worst}")
    return found


def table(name: str, result: SafetyReport, failures: list[str]) -> str:
    """Return what people read of one robot's report."""
    lines = [f"{name}: {result.messages} chunks, steps of {1e3 * result.step:.0f} mm, {result.stitch}"]
    for label, values, unit in (
        ("message to plan", result.offer_ms, "ms"), ("  of it CPU", result.offer_cpu_ms, "ms"),
        ("tick", result.tick_ms, "ms"), ("brake", result.brake_ms, "ms"), ("time to rest", result.rest_s, "s"),
        ("tracking", result.tracking_mm, "mm"), ("delay", result.delay_ms, "ms"),
    ):  # fmt: skip
        said = "  ".join(f"{key} {value:8.3f}" for key, value in values.items()) or "nothing to measure"
        lines.append(f"  {label:18}{said} {unit}")
    lines.append(f"  ticks at 100 Hz and messages take {100 * result.core:.1f}% of a core, without ROS")
    lines.append(f"  worst of limits   {'  '.join(f'{k} {v:.3f}' for k, v in result.worst.items())}")
    lines.append(f"  interventions {result.interventions or 'none'}, refused {result.refused or 'none'}")
    lines.append(f"  RMS jerk, rad/s3  {'at seams':>10}{'inside':>10}{'in all':>10}{'ratio':>8}{'of the arm':>12}")
    for way, seam in result.seams.items():
        told = [*(seam[part] for part in ("at_seams", "inside", "overall", "ratio")), result.arm_seams[way]["ratio"]]
        numbers = [math.nan if value is None else value for value in told]
        lines.append("  {:18}{:10.0f}{:10.0f}{:10.0f}{:8.2f}{:12.2f}".format(way.replace("_", " "), *numbers))
    return "\n".join([*lines, *(f"  FAILED: {failure}" for failure in failures)])
