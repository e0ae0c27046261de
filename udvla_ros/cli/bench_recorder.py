"""``udvla bench recorder``: what recording costs, whether the arm notices, and whether the bag is complete."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from udvla_ros.graph import ResolvedNode

ROBOT = "config/robots/ur5e_sim.yaml"
START = 60.0  # s until every node must be ready
PLAYS = ("cameras", "joints", "policy")


def register(kinds: argparse._SubParsersAction) -> None:
    """Add ``recorder`` to the subcommands of ``bench``."""
    parser = kinds.add_parser(
        "recorder",
        help="record two cameras and all else, and measure what that costs",
        description="Two 640x480 cameras, joint states, predicted images and the arbiter as real processes, first "
        "without and then with a recorder. Exit code 1 where it takes 15%% of a core, the arbiter's rate changes by "
        "2%%, or a message that was published is not in the bag. Ten minutes take 34 GB of disk, given back.",
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="of recording (default: %(default)g)")
    parser.add_argument("--without", type=float, help="s without a recorder before (default: as long, at most 60)")
    parser.add_argument("--camera-hz", type=float, default=30.0, help="default: %(default)g")
    parser.add_argument("--joint-hz", type=float, default=100.0, help="default: %(default)g; a UR driver has 500")
    parser.add_argument("--images", choices=["raw", "compressed"], default="raw", help="default: %(default)s")
    parser.add_argument("--domain", type=int, help="ROS domain (default: one drawn from the process id)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: runs/bench-recorder/<time>")
    parser.add_argument("--keep", action="store_true", help="keep the bag")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the report there")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, print a table, draw. Returns 1 where recording is not cheap, harmless and complete."""
    from udvla_ros.proving.rigs import load_client  # first of all: rclpy's wheels may start this Python anew

    del load_client
    from udvla_ros.errors import ConfigError
    from udvla_ros.evaluation import report
    from udvla_ros.proving.bench import recorder_bench

    if not args.seconds > 2:
        raise ConfigError(f"--seconds {args.seconds:g} is too short for a rate; give more than 2")
    folder = report.run_folder("bench-recorder", args.out)
    without, recorded, status = _measure(args, folder)
    bag = Path(status["folder"])
    result = recorder_bench.judge(without, recorded, bag, status)
    result |= {"camera_hz": args.camera_hz, "joint_hz": args.joint_hz, "command": report.command_line()}
    if not args.keep:
        shutil.rmtree(bag)
    print(recorder_bench.table(result))
    picture = recorder_bench.draw(folder / "recorder.png", recorded, result, recorded.cpu)
    written = report.write_report(folder / "report.json", result)
    if args.json:
        report.write_report(args.json, result)
    print(f"picture: {picture}\nreport: {args.json or written}" + (f"\nbag: {bag}" if args.keep else ""))
    return 0 if result["passed"] else 1


def _nodes(args: argparse.Namespace, folder: Path) -> list[ResolvedNode]:
    """Return arbiter and recorder as the table of nodes has them, and the load."""
    from dataclasses import replace

    from udvla_ros import graph

    arguments = {"policy": "false", "record": "true", "record_auto": "false", "record_dir": str(folder / "bags")}
    table = {node.name: node for node in graph.resolve("sim", {**arguments, "robot": ROBOT})}
    recorder = table["recorder_node"]
    nodes = [
        table["arbiter_node"], replace(recorder, parameters={**recorder.parameters, "images": args.images}),
    ]  # fmt: skip
    rates = {"cameras": args.camera_hz, "joints": args.joint_hz, "policy": 2.0}
    for plays in PLAYS:
        nodes.append(
            graph.ResolvedNode(
                "load_node", "udvla_ros.proving.rigs.load_node", f"load_{plays}",
                parameters={"robot": ROBOT, "plays": plays, "hz": rates[plays]},
            )
        )  # fmt: skip
    return nodes


def _measure(args: argparse.Namespace, folder: Path) -> tuple[Any, Any, dict[str, Any]]:
    """Run both phases; returns them and the recorder's last word on its bag."""
    from tqdm import tqdm

    from udvla_ros.bringup import Bringup, loopback_environment
    from udvla_ros.proving.rigs.load_client import joined

    domain = args.domain if args.domain is not None else 1 + os.getpid() % 100
    os.environ.update(loopback_environment(domain=domain))
    seconds = min(args.seconds, 60.0) if args.without is None else args.without
    nodes = _nodes(args, folder)
    first = [node.name for node in nodes if node.name != "recorder_node"]
    bringup = Bringup(nodes, dict(os.environ), write=lambda line: None, log_dir=folder / "logs")
    try:
        bringup.start(first)
        bringup.wait_ready(START, first)

        def health() -> str:
            ended = [f"{n} ended with code {c}" for n, c in bringup.codes().items() if c is not None and n in started]
            return f"{ended[0]}; see {folder / 'logs'}" if ended else ""

        started = list(first)
        pids = {name: bringup.pid(name) for name in first}
        with joined([f"load_{plays}" for plays in PLAYS], health) as client:
            with tqdm(total=round(seconds), desc="without", unit="s") as bar:
                client.run_phase(2.0, pids, lambda s: None)  # the first messages of all take longest
                without = client.run_phase(seconds, pids, lambda s: bar.update(round(s)))
            bringup.start(["recorder_node"])
            bringup.wait_ready(START, ["recorder_node"])
            started.append("recorder_node")
            pids["recorder_node"] = bringup.pid("recorder_node")
            client.begin()
            topics = without.published
            client.wait(
                lambda: all(client.status.get("topics", {}).get(name) for name in topics), "the recorder to hear all"
            )
            client.end()
            client.trigger("recorder_node/start")
            with tqdm(total=round(args.seconds), desc="with   ", unit="s") as bar:
                recorded = client.run_phase(args.seconds, pids, lambda s: bar.update(round(s)))
            client.trigger("recorder_node/stop_success")
            client.wait(lambda: client.status.get("last"), "the recorder's last word")
            return without, recorded, client.status["last"]
    finally:
        bringup.stop()
