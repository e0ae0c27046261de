"""``udvla eval``: measure success in closed loop without ROS, along the same path as with it."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

from udvla_ros.cli import eval_libero
from udvla_ros.cli.data import positive
from udvla_ros.errors import ConfigError

# Sub-commands beside the flat form; each module has register(subparsers).
WHAT = (
    "udvla_ros.cli.eval_faults",
    "udvla_ros.cli.eval_takeovers",
    "udvla_ros.cli.eval_table",
    "udvla_ros.cli.eval_monitor",
    "udvla_ros.cli.eval_results",
)  # fmt: skip
DUMPED = 4  # episodes per task that --dump draws


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the command ``eval``."""
    parser = subparsers.add_parser(
        "eval",
        help="measure success in closed loop without ROS",
        description="Run a bundle in closed loop in simulation, without ROS and as fast as it goes, and report success "
        "rates with 95%% intervals (Wilson) and latencies. Scenes come from seeds that no demonstration has.",
    )
    parser.add_argument(
        "--suite", default="tabletop", help="tabletop (default), or one of LIBERO, such as libero_object"
    )
    eval_libero.add_arguments(parser)
    parser.add_argument(
        "--task", default="all", help="touch, pick, push, place, all (the bundle's own) or swap; several with commas"
    )
    parser.add_argument("--episodes", type=positive, help="per task; for swap, scenes (default: 30; LIBERO: 50)")
    parser.add_argument("--seed", type=int, default=0, help="first scene, counted from 1000000 (default: 0)")
    parser.add_argument("--held-out", action="store_true", help="phrasings that demonstrations never use")
    parser.add_argument("--condition", default="plain", help="plain, distractors, light or camera (default: plain)")
    parser.add_argument("--bundle", default="models/udvla-nano-ur5e", help="folder (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the report there")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: runs/eval/<time>")
    parser.add_argument("--dump", type=Path, metavar="DIR", help=f"draw the first {DUMPED} episodes of each task there")
    add_decoding_arguments(parser)
    parser.add_argument("--execute", type=positive, help="control steps between looks (default: 4; LIBERO: the chunk)")
    parser.add_argument("--latency-steps", type=int, default=0, help="control steps a chunk is late (default: 0)")
    parser.add_argument("--cut-unreachable", action="store_true", help="play a chunk up to its first unreachable step")
    parser.add_argument("--batch", type=positive, default=8, help="worlds in one process (default: %(default)s)")
    parser.add_argument("--workers", type=positive, default=1, help="processes (default: %(default)s)")
    parser.add_argument("--latency-samples", type=int, default=20, help="single inferences timed (default: 20)")
    parser.add_argument(
        "--against", type=Path, metavar="REPORT", help="compare with that report, episode by episode (same --seed)"
    )
    parser.set_defaults(run=run)
    kinds = parser.add_subparsers(dest="what", metavar="WHAT", required=False)
    for module in WHAT:
        importlib.import_module(module).register(kinds)


def add_decoding_arguments(parser: argparse.ArgumentParser) -> None:
    """Add device and decoding options; what is not given is the bundle's own."""
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--threads", type=positive, help="CPU threads of inference (default: torch's choice)")
    parser.add_argument("--steps", type=int, help="denoising steps of the future images")
    parser.add_argument("--action-steps", type=int, help="denoising steps of the actions")
    parser.add_argument("--temperature", type=float, help="of sampling; 0: the most likely tokens")
    parser.add_argument("--confidence-threshold", type=float, help="commit tokens above this probability at once")
    parser.add_argument("--foresight", help="full: imagine the future; sketch: half of it; off: actions only")
    parser.add_argument("--schedule", help="public or paper")
    parser.add_argument("--decoder", help="jd3p, independent, autoregressive or jacobi")
    parser.add_argument("--iterations", type=positive, help="early exit: forwards of images and action at most")
    parser.add_argument(
        "--stop-when-ready", action="store_true", default=None, help="end when the action is there, images open"
    )
    parser.add_argument("--sampler", help="exact, annealed or published: what is drawn and who is committed")
    parser.add_argument("--entropy-bound", type=float, metavar="NATS", help="in place of the schedule; steps are caps")
    parser.add_argument("--samples", type=positive, help="chunks drawn, of which the one nearest to the plan is taken")
    parser.add_argument(
        "--remask", type=float, metavar="SHARE", help="approximate: committed tokens opened again after a step"
    )
    parser.add_argument("--dtype", help="float32, bfloat16 or float16: number type of the decoder")
    parser.add_argument("--weights", help="float or int8: the decoder's weights")
    parser.add_argument("--compile", help="off, on or auto: compile the decoder")


def decoding_changes(args: argparse.Namespace) -> dict[str, Any]:
    """Return the decoding options that were given."""
    names = (
        "steps", "action_steps", "temperature", "confidence_threshold", "foresight", "schedule", "decoder",
        "iterations", "stop_when_ready", "sampler", "entropy_bound", "samples", "remask",
    )  # fmt: skip
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def runtime_changes(args: argparse.Namespace) -> dict[str, Any]:
    """Return how inference shall run here, as far as it was said."""
    return {name: getattr(args, name) for name in ("dtype", "weights", "compile") if getattr(args, name) is not None}


def run(args: argparse.Namespace) -> int:
    """Measure, print a table, and write ``report.json``."""
    if args.suite != "tabletop":
        return eval_libero.run(args, decoding_changes(args), runtime_changes(args))
    args.episodes, args.execute = args.episodes or 30, args.execute or 4
    from dataclasses import asdict, replace
    from functools import partial

    from tqdm import tqdm

    from udvla_ros.evaluation import report, suite
    from udvla_ros.evaluation.cases import Trial, trained_kinds, trained_sentences
    from udvla_ros.evaluation.closed_loop import LoopOptions
    from udvla_ros.evaluation.dump import dump
    from udvla_ros.evaluation.paired import pair
    from udvla_ros.evaluation.swap import summarise_swap

    earlier = _episodes(args.against) if args.against else []
    trial = Trial(args.held_out, args.condition, trained_sentences(args.bundle))
    kinds = suite.kinds_of(args.task, trained_kinds(args.bundle))
    cases = {kind: suite.make_cases(kind, args.episodes, args.seed, trial) for kind in kinds}
    longest = max(len(listed) for listed in cases.values())
    options = suite.SuiteOptions(
        args.bundle, args.device, args.threads, decoding_changes(args),
        LoopOptions(args.execute, args.latency_steps, cut=args.cut_unreachable), min(args.batch, longest), args.workers,
        args.latency_samples, DUMPED if args.dump else 0, runtime_changes(args),
    )  # fmt: skip
    result: dict[str, Any] = {"suite": args.suite, "tasks": {}}
    here = replace(options, batch=1) if args.workers > 1 else options  # the workers make worlds of their own
    with suite.Session(here) as session:
        result["bundle"] = suite.identity(session.policy)
        result["latency_ms"] = session.latency()
        run = partial(suite.run_parallel, options) if args.workers > 1 else session.run
        for kind, listed in cases.items():
            with tqdm(total=len(listed), desc=kind, unit="ep", mininterval=0.5) as bar:
                outcomes = run(kind, listed, suite.counting(bar))
            if kind == "swap":
                result["swap"] = summarise_swap(outcomes)
            else:
                result["tasks"][kind] = suite.summarise(outcomes)
            result.setdefault("episodes", []).extend(suite.episode(kind, outcome) for outcome in outcomes)
            if args.dump:
                for path in dump(outcomes, args.dump / kind):
                    print(f"wrote {path}")
        result["options"] = {
            "decoding": asdict(session.decode), **runtime_changes(args), "execute": session.loop.options.execute,
            "latency_steps": session.loop.options.latency, "cut_unreachable": session.loop.options.cut,
            "episodes": args.episodes, "seed": args.seed, "device": args.device, "batch": args.batch,
            "workers": args.workers, "held_out": args.held_out, "condition": args.condition,
        }  # fmt: skip
    if earlier:
        result["against"] = {"report": str(args.against), **pair(earlier, result["episodes"]).as_dict()}
    result["command"] = report.command_line()
    folder = report.run_folder("eval", args.out)
    written = report.write_report(folder / "report.json", result)
    if args.json:
        report.write_report(args.json, result)
    print(table(result))
    print(f"report: {args.json or written}")
    return 0


def _episodes(path: Path) -> list[dict[str, Any]]:
    """Return the episodes of an earlier report.

    Raises:
        ConfigError: it is no report of this command.
    """
    try:
        return list(json.loads(path.read_text(encoding="utf-8"))["episodes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is no report of udvla eval ({error}); name its report.json") from None


def _percent(section: dict[str, Any]) -> str:
    low, high = section["ci95"]
    return f"{100 * section['rate']:5.1f}%   [{100 * low:.1f}, {100 * high:.1f}]"


def table(result: dict[str, Any]) -> str:
    """Return what people read of a report."""
    lines = [f"bundle {result['bundle']['name']} ({result['bundle']['hash'][:12]})"]
    for kind, section in result["tasks"].items():
        steps = f"   {section['mean_steps']} steps" if section["mean_steps"] is not None else ""
        lines.append(f"{kind:6} {section['successes']:3}/{section['episodes']:<3} {_percent(section)}{steps}")
        lines += [f"       {count} x {reason}" for reason, count in section["failures"].items()]
        if section["refused_chunks"]:
            refused = ", ".join(f"{count} x {kind}" for kind, count in section["refused_chunks"].items())
            lines.append(f"       refused chunks: {refused}")
    if "swap" in result:
        swap = result["swap"]
        words, scenes = swap["words"], swap["scenes"]
        lines.append(f"swap   {words['right']:3}/{words['count']:<3} {_percent(words)}   words right")
        lines.append(
            f"       {scenes['followed']:3}/{scenes['count']:<3} {_percent(scenes)}   scenes with every word right"
        )
        lines += [f"       said {word}: {counts}" for word, counts in swap["approached_by_word"].items()]
    if "against" in result:
        told = result["against"]
        low, high = told["ci95"]
        lines.append(
            f"against {told['report']}: {told['pairs']} pairs, {told['only_first']} lost and {told['only_second']} won "
            f"here alone, {100 * told['difference']:+.1f} points [{100 * low:.1f}, {100 * high:.1f}], p {told['p']:g}"
        )
    for stage, values in result["latency_ms"].items():
        lines.append(f"{stage:>12} " + "  ".join(f"{name} {value:7.1f}" for name, value in values.items()) + " ms")
    return "\n".join(lines)
