"""``udvla bench soak``: the whole graph for a long time, and whether it stays as it is."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

ROBOT = "config/robots/ur5e_sim.yaml"
START = 120.0  # s until every node must be ready
FIRST = 30_000  # scene of the first episode, apart from those that success is reported on


def register(kinds: argparse._SubParsersAction) -> None:
    """Add ``soak`` to the subcommands of ``bench``."""
    soak = kinds.add_parser(
        "soak",
        help="run the graph for a long time and watch memory, latency and control cycles",
        description="Simulation, policy and arbiter as separate processes, one episode after the other in real time. "
        "Exit code 1 where the memory of one of them grows, or p99 of the chunks is beyond twice their median.",
    )
    soak.add_argument("--minutes", type=float, default=30.0, help="default: %(default)g")
    soak.add_argument("--bundle", default="models/udvla-nano-ur5e", help="folder (default: %(default)s)")
    soak.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    soak.add_argument("--params-file", type=Path, metavar="YAML", help="parameters of your own, say from udvla tune")
    soak.add_argument("--seed", type=int, default=0, help="shifts the scenes (default: 0)")
    soak.add_argument("--domain", type=int, help="ROS domain (default: one drawn from the process id)")
    soak.add_argument("--out", type=Path, metavar="DIR", help="default: runs/soak/<time>")
    soak.add_argument("--json", type=Path, metavar="FILE", help="also write the report there")
    soak.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run for that long, judge, draw. Returns 1 where it does not stay as it is."""
    from udvla_ros.proving.rigs import soak_client  # first of all: rclpy's wheels may start this Python anew

    del soak_client
    from udvla_ros import graph
    from udvla_ros.errors import ConfigError
    from udvla_ros.evaluation import report
    from udvla_ros.proving.bench import soak, soak_plot

    if not args.minutes > 0:
        raise ConfigError(f"--minutes {args.minutes:g} is no time; give more than 0")
    arguments = {"bundle": args.bundle, "device": args.device, "robot": ROBOT}
    if args.params_file:
        arguments["params_file"] = str(args.params_file)
    folder = report.run_folder("soak", args.out)
    record, seconds, problem = _watch(graph.resolve("sim", arguments), args, folder)
    verdict = soak.judge(record, seconds)
    if problem:
        verdict["passed"] = False
    result = {
        **verdict, "problem": problem, "bundle": args.bundle, "minutes": args.minutes, "command": report.command_line()
    }  # fmt: skip
    written = report.write_report(folder / "report.json", result)
    if args.json:
        report.write_report(args.json, result)
    print(table(result))
    print(f"picture: {soak_plot.draw(folder / 'soak.png', record, verdict)}")
    print(f"report: {args.json or written}")
    return 0 if verdict["passed"] else 1


def _watch(nodes: Any, args: argparse.Namespace, folder: Path) -> tuple[Any, float, str]:
    """Run episodes until the time is over; returns the record, its seconds and what broke, if anything did."""
    from tqdm import tqdm

    from udvla_ros.bringup import Bringup, loopback_environment
    from udvla_ros.evaluation.cases import demo_cases, trained_on
    from udvla_ros.motion.robot import RobotDescription
    from udvla_ros.proving.rigs import soak_client
    from udvla_ros.proving.rigs.demo_client import GraphFailed

    os.environ.update(loopback_environment(domain=args.domain if args.domain is not None else 1 + os.getpid() % 100))
    whole, problem = 60.0 * args.minutes, ""
    most = max(1, round(60 * args.minutes))  # an episode takes more than a second
    cases = demo_cases(most, FIRST + args.seed, *trained_on(args.bundle))
    with Bringup(nodes, dict(os.environ), write=lambda line: None, log_dir=folder / "logs") as bringup:
        bringup.wait_ready(START)

        def health() -> str:
            ended = {name: code for name, code in bringup.codes().items() if code is not None}
            return next((f"{name} ended with code {code}" for name, code in ended.items()), "")

        pids = {node.name: bringup.pid(node.name) for node in nodes}
        with (
            soak_client.joined(RobotDescription.load(ROBOT), health, pids) as client,
            tqdm(total=round(whole), desc="soak", unit="s") as bar,
        ):
            for number, case in enumerate(cases, 1):
                if client.elapsed() >= whole:
                    break
                try:
                    episode = client.run_episode(case)
                except GraphFailed as error:
                    problem = str(error)
                    break
                client.record.episodes.append((client.elapsed(), episode.success))
                bar.update(min(round(client.elapsed()), bar.total) - bar.n)
                bar.set_postfix_str(f"{number} episodes, {len(client.record.chunks)} chunks")
            return client.record, client.elapsed(), problem


def table(result: dict[str, Any]) -> str:
    """Return what people read of the report."""
    lines = [
        f"{result['seconds'] / 60:.1f} min, {result['episodes']} episodes ({result['successes']} succeeded), "
        f"{result['chunks']} chunks"
    ]
    for name, told in result["memory"].items():
        slope = "too short to say" if told["slope_mib_per_hour"] is None else f"{told['slope_mib_per_hour']:+.1f} MiB/h"
        word = {True: "constant", False: "GROWS", None: ""}[told["constant"]]
        lines.append(f"{name:14} {told['mib']:7.1f} MiB, most {told['most_mib']:.1f}, {slope}  {word}")
    for stage, values in result["latency_ms"].items():
        lines.append(f"{stage:>20} " + "  ".join(f"{name} {value:7.1f}" for name, value in values.items()) + " ms")
    lines.append(f"p99 / p50 of a chunk: {result['p99_over_p50']}; last fifth over first: {result['drift']}")
    gaps = result["tick_gap_ms"]
    if gaps:
        told = ", ".join(f"{name} {value:.1f}" for name, value in gaps.items())
        missed = f"{result['missed_cycles']} of {result['commands']} cycles missed"
        lines.append(f"between two commands: {told} ms; {missed}")
    if result["problem"]:
        lines.append(f"the graph broke: {result['problem']}")
    lines.append("passed" if result["passed"] else "FAILED")
    return "\n".join(lines)
