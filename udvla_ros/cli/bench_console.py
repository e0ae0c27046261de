"""``udvla bench console``: what the operator's page costs, and whether the arm notices it, or a crowd at it."""

from __future__ import annotations

import argparse
import asyncio
import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from udvla_ros.cli.bench_recorder import PLAYS, ROBOT, START

CPU_SHARE, RATE_CHANGE = 0.10, 0.01  # of a core with one viewer; of the arbiter's rate


def register(kinds: argparse._SubParsersAction) -> None:
    """Add ``console`` to the subcommands of ``bench``."""
    parser = kinds.add_parser(
        "console",
        help="look at two cameras on the operator's page, and measure what that costs",
        description="Two 640x480 cameras, joint states, predicted images and the arbiter as real processes: without "
        "console_node, with one viewer, and with a crowd of 1000 connections. Exit code 1 where the page takes 10%% of "
        "a core with its viewer, or the arbiter's rate changes by 1%%.",
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="of each stretch (default: %(default)g)")
    parser.add_argument("--camera-hz", type=float, default=30.0, help="default: %(default)g")
    parser.add_argument("--domain", type=int, help="ROS domain (default: one drawn from the process id)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: runs/bench-console/<time>")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the report there")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure and print. Returns 1 where the page is not cheap and harmless."""
    from udvla_ros.proving.rigs import load_client  # first of all: rclpy's wheels may start this Python anew

    del load_client
    from udvla_ros.errors import ConfigError
    from udvla_ros.evaluation import report

    if not args.seconds > 2:
        raise ConfigError(f"--seconds {args.seconds:g} is too short for a rate; give more than 2")
    folder = report.run_folder("bench-console", args.out)
    phases, seen = _measure(args, folder)
    share, rate = phases["a viewer"].share("console_node"), phases["without"].hz()
    changes = {name: phase.hz() / rate - 1.0 for name, phase in phases.items() if name != "without"}
    result: dict[str, Any] = {
        "passed": share < CPU_SHARE and all(abs(change) < RATE_CHANGE for change in changes.values()),
        "console_cpu": {name: round(phases[name].share("console_node"), 4) for name in changes},
        "arbiter_hz": {name: round(phase.hz(), 3) for name, phase in phases.items()},
        "command_gap_ms": {name: phase.gaps_ms() for name, phase in phases.items()},
        "seen_per_second": {key: round(n / phases["a viewer"].seconds, 1) for key, n in sorted(seen.items())},
        "seconds": args.seconds, "camera_hz": args.camera_hz, "cores": os.cpu_count(),
        "load_average": os.getloadavg(), "command": report.command_line(),
    }  # fmt: skip
    for name, phase in phases.items():
        cpu = f"{100 * phase.share('console_node'):5.1f} % of a core" if name != "without" else ""
        print(f"{name:10} arbiter {phase.hz():7.3f} Hz, gap p99 {phase.gaps_ms()['p99']:6.2f} ms  {cpu}")
    print("the viewer saw", ", ".join(f"{key} {n:g}" for key, n in result["seen_per_second"].items()), "a second")
    print("ok" if result["passed"] else f"FAILED: below {CPU_SHARE:.0%} of a core and {RATE_CHANGE:.0%} of the rate")
    written = report.write_report(folder / "report.json", result)
    if args.json:
        report.write_report(args.json, result)
    print(f"report: {args.json or written}")
    return 0 if result["passed"] else 1


def _measure(args: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], Counter[str]]:
    """Return what happened in each stretch, and what the viewer was told, by kind."""
    from udvla_ros import graph
    from udvla_ros.bringup import Bringup, loopback_environment
    from udvla_ros.proving.faults.flood import flooded
    from udvla_ros.proving.faults.graph import free_port
    from udvla_ros.proving.rigs.load_client import joined

    domain = args.domain if args.domain is not None else 1 + os.getpid() % 100
    os.environ.update(loopback_environment(domain=domain))
    port = free_port()
    arguments = {"policy": "false", "console": "true", "console_port": str(port), "robot": ROBOT}
    table = {node.name: node for node in graph.resolve("sim", arguments)}
    rates = {"cameras": args.camera_hz, "joints": 100.0, "policy": 2.0}
    nodes = [table["arbiter_node"], table["console_node"]] + [
        graph.ResolvedNode(
            "load_node", "udvla_ros.proving.rigs.load_node", f"load_{plays}",
            parameters={"robot": ROBOT, "plays": plays, "hz": rates[plays]},
        )
        for plays in PLAYS
    ]  # fmt: skip
    first = [node.name for node in nodes if node.name != "console_node"]
    bringup, seen = Bringup(nodes, dict(os.environ), write=lambda line: None, log_dir=folder / "logs"), Counter[str]()
    try:
        bringup.start(first)
        bringup.wait_ready(START, first)
        with joined([f"load_{plays}" for plays in PLAYS], lambda: "") as client:
            client.run_phase(2.0, {}, lambda s: None)  # the first messages of all take longest
            phases = {"without": client.run_phase(args.seconds, {}, lambda s: None)}
            bringup.start(["console_node"])
            bringup.wait_ready(START, ["console_node"])
            pids = {"console_node": bringup.pid("console_node")}
            with _viewer(port, seen):
                client.run_phase(2.0, pids, lambda s: None)
                seen.clear()
                phases["a viewer"] = client.run_phase(args.seconds, pids, lambda s: None)
            with flooded(port):
                phases["a crowd"] = client.run_phase(args.seconds, pids, lambda s: None)
        return phases, seen
    finally:
        bringup.stop()


@contextmanager
def _viewer(port: int, seen: Counter[str]) -> Iterator[None]:
    """Look on for the length of a block, in a thread; counts what is told."""
    from aiohttp import ClientSession, WSMsgType

    async def look() -> None:
        headers = {"Origin": f"http://127.0.0.1:{port}"}
        address = f"http://127.0.0.1:{port}/socket"
        async with ClientSession() as session, session.ws_connect(address, headers=headers) as ws:
            async for message in ws:
                if ended.is_set():
                    return
                picture = message.type is WSMsgType.BINARY
                seen[("pictures", "predictions")[message.data[0]] if picture else "other news"] += 1

    ended = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(look()), name="viewer", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(5.0)
