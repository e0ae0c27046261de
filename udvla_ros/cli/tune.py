"""``udvla tune``: which way of decoding is worth its time, on this machine, with this checkpoint."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from udvla_ros.cli.data import positive
from udvla_ros.errors import ConfigError

FLOOR = 0.97
ROBOT = "config/robots/ur5e_sim.yaml"


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the command ``tune``."""
    parser = subparsers.add_parser(
        "tune",
        help="find decoding options for this machine and write them as parameters of policy_node",
        description="Decode the same observations in many ways, several seeds each; measure latency and how far the "
        "actions are from those of the full-step reference, and success in simulation for those at the front. Writes "
        "the Pareto front as a picture and the chosen point as a parameter file. Run again, it goes on where it was. "
        "Exit code 1: nothing meets the wish.",
    )
    parser.add_argument("--bundle", default="models/udvla-nano-ur5e", help="folder (default: %(default)s)")
    parser.add_argument("--robot", default=ROBOT, help="robot file that the bundle has to fit (default: %(default)s)")
    parser.add_argument(
        "--observations", default="sim", metavar="SIM|FOLDER",
        help="'sim', or a folder of generated episodes or of recorded bags (default: sim)",
    )  # fmt: skip
    wish = parser.add_mutually_exclusive_group()
    wish.add_argument("--budget-ms", type=float, metavar="MS", help="the best within this p95 per chunk")
    wish.add_argument(
        "--floor", type=float, metavar="SHARE",
        help=f"the fastest with at least this share of the reference's success or agreement (default: {FLOOR})",
    )  # fmt: skip
    parser.add_argument("--exact", action="store_true", help="choose among exact options only")
    parser.add_argument(
        "--episodes", type=int, metavar="N",
        help="simulated for each candidate at the front; 0: none (default: 60, none with another --robot)",
    )  # fmt: skip
    parser.add_argument("--moments", type=positive, default=24, help="observations (default: %(default)s)")
    parser.add_argument("--seeds", type=positive, default=4, help="chunks of each (default: %(default)s, at least 2)")
    parser.add_argument(
        "--grid", action="append", default=[], metavar="NAME=V,V",
        help="try exactly these values of a parameter of policy_node, in all combinations; may be repeated",
    )  # fmt: skip
    parser.add_argument("--execute", type=positive, default=4, help="control steps between observations (default: 4)")
    parser.add_argument("--seed", type=int, default=0, help="shifts the scenes (default: 0)")
    parser.add_argument("--batch", type=positive, default=8, help="worlds at once (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--threads", type=positive, help="CPU threads (default: all cores but one, as policy_node)")
    parser.add_argument("--dtype", default="float32", help="float32, bfloat16 or float16 (default: %(default)s)")
    parser.add_argument("--weights", default="float", help="float or int8 (default: %(default)s)")
    parser.add_argument("--compile", default="off", help="off, on or auto (default: %(default)s)")
    parser.add_argument(
        "--output", type=Path, default=Path("runs/tune/policy_node.yaml"), metavar="YAML",
        help="parameter file; .png and .jsonl beside it (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--fresh", action="store_true", help="measure again what the .jsonl has")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the report there")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, choose, draw and write. Returns 1 where no candidate meets the wish."""
    import os

    from udvla_ros.evaluation import report
    from udvla_ros.evaluation.store import Store
    from udvla_ros.evaluation.tuning import tune, tune_file, tune_front, tune_plot
    from udvla_ros.evaluation.tuning.tune_run import Protocol, Run
    from udvla_ros.model.runtime import RuntimeOptions
    from udvla_ros.motion.robot import RobotDescription
    from udvla_ros.policy import Policy
    from udvla_ros.policy.contract import check

    wish = tune_front.Wish(args.budget_ms, args.floor if args.floor or args.budget_ms else FLOOR, args.exact)
    episodes = _episodes(args)
    if args.seeds < 2:
        raise ConfigError("--seeds 1 cannot tell a difference from chance: give at least 2")
    threads = args.threads or max(1, (os.cpu_count() or 2) - 1)
    runtime = RuntimeOptions(args.dtype, args.weights, args.compile, threads=threads)
    policy = Policy.load(args.bundle, args.device, runtime=runtime)
    check(policy.config, RobotDescription.load(args.robot))
    found = tune.grid(policy, args.grid) if args.grid else tune.candidates(policy)
    protocol = Protocol(
        args.observations, args.moments, args.seeds, episodes, args.execute, args.seed, args.batch
    )  # fmt: skip
    store = Store(args.output.with_suffix(".jsonl"), args.fresh)
    if len(store):
        print(f"going on from {len(store)} results in {store.path}", flush=True)
    measured = Run(policy, found, protocol, store, _bar)
    rows = measured.rows()
    failed, rows = [r for r in rows if "error" in r], [r for r in rows if "error" not in r]
    measured.simulate(rows)
    reference = rows[0]
    try:
        chosen, problem = tune_front.choose(rows, wish, reference), ""
    except ConfigError as error:
        chosen, problem = None, str(error)
    title = f"{policy.config.name}, {args.device}, CPU threads: {threads}; asked for: {wish.text()}"
    picture = tune_plot.draw(args.output.with_suffix(".png"), rows, chosen, title, args.budget_ms)
    result = {
        "bundle": {"name": policy.config.name, "hash": policy.hash}, "wish": wish.text(), "rows": rows,
        "failed": failed, "front": [r["name"] for r in tune_front.front(rows)],
        "chosen": chosen["name"] if chosen else None, "problem": problem, "protocol": vars(protocol),
        "runtime": vars(runtime), "device": args.device, "robot": args.robot, "command": report.command_line(),
    }  # fmt: skip
    print(table(rows, failed, result["chosen"]))
    print(f"picture: {picture}")
    if args.json:
        print(f"report: {report.write_report(args.json, result)}")
    if chosen is None:
        print(f"nothing was written: {problem}")
        return 1
    contents = tune_file.text(chosen, _parameters(runtime), _heading(policy, chosen, wish, reference))
    print(f"parameters: {tune_file.write(args.output, contents)}  (params_file:={args.output})")
    return 0


def _episodes(args: argparse.Namespace) -> int:
    """Return how many episodes to simulate.

    Raises:
        ConfigError: simulation was asked for, and the robot is not the simulated one.
    """
    simulated = Path(args.robot).stem == Path(ROBOT).stem
    if not simulated and (args.observations == "sim" or args.episodes):
        raise ConfigError(f"only {ROBOT} can be simulated: for another robot give --observations FOLDER, no --episodes")
    if args.episodes is not None and args.episodes < 0:
        raise ConfigError(f"--episodes {args.episodes} is less than none")
    return args.episodes if args.episodes is not None else (60 if simulated else 0)


def _bar(total: int, what: str) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, desc=what, mininterval=0.5)


def _parameters(runtime: Any) -> dict[str, Any]:
    return {name: getattr(runtime, name) for name in ("threads", "dtype", "weights", "compile")}


def _heading(policy: Any, chosen: Mapping[str, Any], wish: Any, reference: Mapping[str, Any]) -> list[str]:
    from udvla_ros.decoding.interface import DecodeOptions
    from udvla_ros.evaluation.tuning.tune import name_of

    times = chosen["latency_ms"]
    name_of_reference = name_of(DecodeOptions(**reference["options"]), policy.options())
    lines = [
        f"Written by udvla tune for bundle {policy.config.name} ({policy.hash[:12]}); asked for: {wish.text()}.",
        f"{chosen['name']}: p50 {times['p50']:.1f} ms, p95 {times['p95']:.1f} ms per chunk; in the same minutes "
        f"{chosen['speedup']:g} times faster than the reference, '{name_of_reference}'; agreement "
        f"{chosen['agreement']:.3f}.",
    ]
    if "success" in chosen:
        low, high = chosen["success"]["ci95"]
        lines.append(
            f"Success {chosen['success']['successes']} of {chosen['success']['episodes']} simulated episodes "
            f"[{100 * low:.0f}, {100 * high:.0f}]%, the reference {reference['success']['successes']} of the same ones."
        )
    return lines


def table(rows: Sequence[dict[str, Any]], failed: Sequence[dict[str, Any]], chosen: str | None) -> str:
    """Return what people read of the report."""
    from udvla_ros.evaluation.tuning.tune_front import front

    best = {row["name"] for row in front(rows)}
    width = max(len(row["name"]) for row in rows)
    part = next(name for name in ("translation", "joints") if name in rows[0])
    unit = "mm" if rows[0][part]["unit"] == "m" else "mrad"
    lines = [
        f"{'':{width}}     p50     p95  faster  forwards  agreement  RMSE {unit:>4}  (spread)  gripper  images  success"
    ]
    for row in sorted(rows, key=lambda r: r["latency_ms"]["p50"]):
        mark = "*" if row["name"] == chosen else "|" if row["name"] in best else " "
        images = "     -" if row["image_agreement"] is None else f"{row['image_agreement']:6.3f}"
        line = (
            f"{row['name']:{width}} {mark} {row['latency_ms']['p50']:6.1f}  {row['latency_ms']['p95']:6.1f} "
            f"{row['speedup']:6.2f}x  {row['forwards']:8.1f}  {row['agreement']:9.3f}  {1e3 * row[part]['rmse']:9.2f}  "
            f"{1e3 * row[part]['own_spread']:8.2f}  {row['gripper_agreement']:7.3f}  {images}"
        )
        if "success" in row:
            told = row["success"]
            low, high = told["ci95"]
            line += f"  {told['successes']}/{told['episodes']} [{100 * low:.0f}, {100 * high:.0f}]"
        lines.append(line + ("" if row["exact"] else "  approximate"))
    lines.append("ms per chunk; | at the front, * chosen; RMSE per action against the reference, (spread) with itself")
    lines += [f"{row['name']}: {row['error']}" for row in failed]
    return "\n".join(lines)
