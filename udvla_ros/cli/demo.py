"""``udvla demo``: the whole graph in simulation as separate processes, a report and pictures to look at."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from udvla_ros.cli.data import positive
from udvla_ros.errors import BundleError, ConfigError

if TYPE_CHECKING:
    from udvla_ros.evaluation.cases import Case
    from udvla_ros.evaluation.recording import EpisodeRecord
    from udvla_ros.graph import ResolvedNode

START = 120.0  # s until every node must be ready
FILM_HZ = 12.0  # as the simulation's cameras
GIF_EPISODES = 2  # a GIF of more is too large for a web page
ROBOT = "config/robots/ur5e_sim.yaml"


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the command ``demo``."""
    parser = subparsers.add_parser(
        "demo",
        help="run the whole graph in simulation and write a report with pictures",
        description="Start simulation, arbiter and policy as separate processes that talk over ROS 2, run episodes "
        "over all instructions on scenes no training saw, and write report.json, demo.mp4 and contact_sheet.png.",
    )
    parser.add_argument("--episodes", type=positive, default=6, help="default: %(default)s, each instruction once")
    parser.add_argument("--seed", type=int, default=0, help="first scene, counted from 1000000 (default: 0)")
    parser.add_argument("--bundle", default="models/udvla-nano-ur5e", help="folder (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument(
        "--server", default="", metavar="ws://HOST:PORT", help="`udvla serve` of the bundle, in policy_node's place"
    )
    parser.add_argument("--params-file", type=Path, metavar="YAML", help="parameters of your own for the nodes")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: runs/demo/<time>, with a link 'latest'")
    parser.add_argument("--record", action="store_true", help="record each episode as a rosbag, into DIR/bags")
    parser.add_argument(
        "--teleop-script", metavar="FILE", help="an operator takes over in each episode by this script, or 'builtin'"
    )
    parser.add_argument("--domain", type=int, help="ROS domain (default: one drawn from the process id)")
    parser.add_argument("--headless", action="store_true", help="render without the display, even if there is one")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the demo. Returns 0 when all episodes ran, successful or not, and 1 when the graph failed."""
    from udvla_ros.proving.rigs import demo_client  # first of all: rclpy's wheels may start this Python anew

    del demo_client
    from udvla_ros import graph
    from udvla_ros.bringup import BringupError
    from udvla_ros.evaluation.cases import demo_cases, trained_on
    from udvla_ros.evaluation.report import run_folder

    bundle = _bundle_identity(args.bundle)
    cases = demo_cases(args.episodes, args.seed, *trained_on(args.bundle))
    first = cases[0]
    arguments = {
        "bundle": args.bundle, "device": args.device, "robot": ROBOT, "seed": str(first.seed),
        "task": str(first.task), "instruction": first.instruction, "server": args.server,
    }  # fmt: skip
    if args.params_file:
        arguments["params_file"] = str(args.params_file)
    operators = [operator(args.teleop_script)] if args.teleop_script else []
    folder = run_folder("demo", args.out)
    if args.record:
        arguments |= {"record": "true", "record_auto": "false", "record_dir": str((folder / "bags").resolve())}
    nodes = [*graph.resolve("sim", arguments), *operators]
    try:
        records, report = run_graph(
            nodes, cases, folder, domain=args.domain, headless=args.headless, record=args.record
        )
    except BringupError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        cause = f" {lines[-1]}" if len(lines) > 1 else ""  # the end of the node's log
        print(f"udvla demo: {lines[0]}{cause} (logs: {folder / 'logs'})", file=sys.stderr)
        return 1
    report["bundle"] = {name: value or bundle[name] for name, value in report["bundle"].items()}
    for path in write_results(records, report, folder):
        print(f"wrote {path}")
    print(table(report))
    return 0


def operator(script: str) -> ResolvedNode:
    """Return the scripted operator, a process of its own on the topics of a real one."""
    from udvla_ros.graph import ResolvedNode
    from udvla_ros.teleop.script import Script

    Script.load(script)  # what is wrong with it is said before anything starts
    return ResolvedNode(
        executable="operator_node", module="udvla_ros.nodes.operator_node", name="operator_node",
        parameters={"robot": ROBOT, "script": script}, essential=False,
    )  # fmt: skip


def _bundle_identity(name: str) -> dict[str, str | None]:
    """Return name and hash of a bundle, and say at once, in one line, that there is none.

    policy_node would need seconds to find out, and without a chunk nobody tells the report what ran.
    """
    from udvla_ros.resources import find

    try:
        config = find(name) / "config.json"
    except ConfigError:
        raise BundleError(f"no bundle at '{name}'; train one (udvla train) or name its folder: --bundle DIR") from None
    if not config.is_file():
        raise BundleError(f"{config.parent} holds no config.json; give the folder of a bundle: --bundle DIR")
    text = config.read_bytes()
    try:
        called = json.loads(text).get("name")
    except (ValueError, AttributeError):
        raise BundleError(f"{config} is no bundle configuration; copy the whole bundle again") from None
    return {"name": called, "hash": hashlib.sha256(text).hexdigest()}


def run_graph(
    nodes: Sequence[ResolvedNode],
    cases: Sequence[Case],
    folder: Path,
    *,
    domain: int | None,
    headless: bool = False,
    record: bool = False,
) -> tuple[list[EpisodeRecord], dict[str, Any]]:
    """Start the nodes, run the cases with a progress line each, stop the nodes.

    Raises:
        BringupError: a node does not start.
        GraphFailed: a node ended or does not answer, in mid-demo.
    """
    from udvla_ros.bringup import Bringup, loopback_environment
    from udvla_ros.evaluation.recording import demo_report
    from udvla_ros.evaluation.report import command_line
    from udvla_ros.motion.robot import RobotDescription
    from udvla_ros.proving.rigs import demo_client

    domain = domain if domain is not None else 1 + os.getpid() % 100
    os.environ.update(loopback_environment(domain=domain))  # this process is a client of the graph
    env = dict(os.environ)
    if headless:
        for name in ("DISPLAY", "WAYLAND_DISPLAY"):
            env.pop(name, None)
    records: list[EpisodeRecord] = []
    print(f"starting {', '.join(node.name for node in nodes)}; their logs: {folder / 'logs'}", flush=True)
    with Bringup(nodes, env, write=lambda line: None, log_dir=folder / "logs") as bringup:
        bringup.wait_ready(START)

        def health() -> str:
            ended = {name: code for name, code in bringup.codes().items() if code is not None}
            if not ended:
                return ""
            name, code = next(iter(ended.items()))
            last = next((line for line in reversed(bringup.log(name)) if line.strip()), "its log is empty")
            return f"{name} ended with code {code}: {last}"

        with demo_client.joined(RobotDescription.load(ROBOT), health, record) as client:
            for number, case in enumerate(cases, 1):
                records.append(client.run_episode(case))
                print(f"{number}/{len(cases)}  {records[-1].line()}", flush=True)
            report = demo_report(records, client.limit_violations(), command_line())
            report["limit_violations_by_kind"] = counts(client.values("sim_node"), "violations_")
            report["refused_chunks"] = counts(client.values("arbiter_node"), "refused/")
    return records, report


def counts(values: dict[str, str], prefix: str) -> dict[str, int]:
    """Return the counters among diagnostic values whose key begins with ``prefix``, which is left out."""
    return {key.removeprefix(prefix): int(value) for key, value in values.items() if key.startswith(prefix)}


def write_results(records: Sequence[EpisodeRecord], report: dict[str, Any], folder: Path) -> list[Path]:
    """Write report, contact sheet and films; returns the files."""
    from udvla_ros.evaluation import mode_bands, pictures
    from udvla_ros.evaluation.recording import film_frames, sheet_rows
    from udvla_ros.evaluation.report import write_report

    written: list[Path | None] = [write_report(folder / "report.json", report)]
    rows = sheet_rows(records)
    if rows:
        written.append(pictures.write_png(folder / "contact_sheet.png", pictures.contact_sheet(rows)))
    if any(mode_bands.seconds_in(record.bands(), "TELEOP") for record in records):
        strips = [(record.line(), record.bands()) for record in records]
        written.append(pictures.write_png(folder / "modes.png", mode_bands.picture(strips)))
    written.append(pictures.write_film(folder / "demo.mp4", film_frames(records), FILM_HZ))
    written.append(pictures.write_gif(folder / "demo.gif", film_frames(records[:GIF_EPISODES]), FILM_HZ))
    return [path for path in written if path is not None]


def table(report: dict[str, Any]) -> str:
    """Return what people read of the report."""
    good = sum(episode["success"] for episode in report["episodes"])
    lines = [f"{good} of {len(report['episodes'])} episodes succeeded; bundle {report['bundle']['name']}"]
    total = report["latency_ms"].get("total")
    if total:
        lines.append(
            f"{report['chunks']} chunks, inference p50 {total['p50']:.0f} ms, p95 {total['p95']:.0f} ms, "
            f"p99 {total['p99']:.0f} ms; control {report['control_hz']:g} Hz"
        )
    between = report["latency_ms"].get("network")
    if between:
        lines.append(f"of it the way to the server p50 {between['p50']:.1f} ms, p95 {between['p95']:.1f} ms")
    helped = [episode for episode in report["episodes"] if any(m["mode"] == "TELEOP" for m in episode.get("modes", ()))]
    if helped:
        good = sum(episode["success"] for episode in helped)
        lines.append(f"taken over by hand and given back in {len(helped)} episodes; {good} of these succeeded")
    bags = sum("bag" in episode for episode in report["episodes"])
    if bags:
        lines.append(f"{bags} episodes recorded, see: udvla bag list {Path(report['episodes'][0]['bag']).parent}")
    lines.append(f"limit violations at the controller: {report['limit_violations']}")
    return "\n".join(lines)
