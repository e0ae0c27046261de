"""``udvla eval takeovers``: take over by hand at random moments while the policy runs, and give back."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from udvla_ros.cli.data import positive

if TYPE_CHECKING:
    from udvla_ros.evaluation.cases import Case
    from udvla_ros.graph import ResolvedNode
    from udvla_ros.proving.takeovers import Takeover

START = 120.0  # s until every node must be ready
ROBOT = "config/robots/ur5e_sim.yaml"
# An operator who takes over soon and would go on for long: it is killed before.
DOOMED = "steps:\n  - wait: 0.6\n  - {jog: {z: 0.03}, for: 1.0}\n  - {jog: {y: 0.02}, for: 30.0}\n"


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the command ``takeovers``."""
    parser = subparsers.add_parser(
        "takeovers",
        help="take over by hand at random moments while the policy runs, and give back",
        description="Run the sim graph with the real policy, take the arm over at random moments and give it back. "
        "Exit code 1 where a command follows the hand later than 50 ms (p99), jumps, or is resumed by itself, or where "
        "a killed operator does not lead to HOLD in time.",
    )
    parser.add_argument("--count", type=positive, default=200, help="takeovers (default: %(default)s)")
    parser.add_argument("--deaths", type=int, help="operators killed while they drive (default: a 20th of --count)")
    parser.add_argument("--seed", type=int, default=0, help="of moments and directions (default: %(default)s)")
    parser.add_argument("--bundle", default="models/udvla-nano-ur5e", help="folder (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the report there")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: runs/takeovers/<time>")
    parser.add_argument("--domain", type=int, help="ROS domain (default: one drawn from the process id)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, print a table, and write report and picture. Returns 1 where the result is a failure."""
    from udvla_ros.proving.rigs import takeovers as client  # first of all: rclpy's wheels may start this Python anew

    del client
    from tqdm import tqdm

    from udvla_ros import graph
    from udvla_ros.evaluation import report
    from udvla_ros.evaluation.cases import demo_cases, trained_on
    from udvla_ros.proving import takeovers

    deaths = args.count // 20 if args.deaths is None else args.deaths
    cases = demo_cases(args.count + deaths + 2, args.seed, *trained_on(args.bundle))
    first = cases[0]
    nodes = graph.resolve("sim", {
        "bundle": args.bundle, "device": args.device, "robot": ROBOT, "seed": str(first.seed),
        "task": str(first.task), "instruction": first.instruction,
    })  # fmt: skip
    folder = report.run_folder("takeovers", args.out)
    with tqdm(total=args.count + deaths, desc="takeovers", unit="", mininterval=0.5) as bar:
        found, result = measure(
            nodes, cases, args.count, deaths, args.seed, folder, domain=args.domain, progress=bar.update
        )
    result |= {"bundle": args.bundle, "seed": args.seed, "load": os.getloadavg()[0], "cores": os.cpu_count()}
    result["command"] = report.command_line()
    result["rows"] = [
        {name: getattr(t, name) for name in ("follow_ms", "mostly_ms", "silence_s", "died", "strain", "faults")}
        for t in found
    ]
    written = report.write_report(folder / "report.json", result)
    if args.json:
        report.write_report(args.json, result)
    print(takeovers.table(result))
    print(f"picture: {takeovers.draw(found, folder / 'takeovers.png')}")
    print(f"report: {args.json or written}")
    return 0 if result["passed"] else 1


def measure(
    nodes: Sequence[ResolvedNode],
    cases: list[Case],
    count: int,
    deaths: int,
    seed: int,
    folder: Path,
    *,
    domain: int | None = None,
    progress: Callable[[], object] = lambda: None,
) -> tuple[list[Takeover], dict[str, Any]]:
    """Start the nodes, take over ``count`` times, kill ``deaths`` operators in between, stop the nodes.

    Raises:
        BringupError: a node does not start.
        GraphFailed: a node ended or does not answer.
    """
    from udvla_ros.bringup import Bringup, loopback_environment
    from udvla_ros.graph import ResolvedNode
    from udvla_ros.motion.robot import RobotDescription
    from udvla_ros.proving.rigs import takeovers
    from udvla_ros.proving.takeovers import summarise

    os.environ.update(loopback_environment(domain=domain if domain is not None else 1 + os.getpid() % 100))
    with tempfile.TemporaryDirectory(prefix="udvla-takeovers-") as scratch:
        script = Path(scratch) / "doomed.yaml"
        script.write_text(DOOMED, encoding="utf-8")
        doomed = ResolvedNode(
            executable="operator_node", module="udvla_ros.nodes.operator_node", name="operator_node",
            parameters={"robot": ROBOT, "script": str(script)}, essential=False,
        )  # fmt: skip
        names = [node.name for node in nodes]
        bringup = Bringup([*nodes, doomed], dict(os.environ), write=lambda line: None, log_dir=folder / "logs")
        try:
            bringup.start(names)
            bringup.wait_ready(START, names)

            def health() -> str:
                ended = {name: code for name, code in bringup.codes().items() if code is not None and name in names}
                return "; ".join(f"{name} ended with code {code}" for name, code in ended.items())

            def start() -> None:
                bringup.start([doomed.name])
                bringup.wait_ready(START, [doomed.name])

            with takeovers.joined(RobotDescription.load(ROBOT), cases, seed, health) as client:
                found = []
                every = max(1, count // max(1, deaths))
                left = deaths
                for number in range(1, count + 1):
                    found.append(client.take_over())
                    progress()
                    if left and (number % every == 0 or count - number < left):
                        found.append(client.watch_a_death(start, lambda: bringup.kill(doomed.name)))
                        left -= 1
                        progress()
                result = summarise(found, takeovers.TIMEOUT, client.limit_violations())
        finally:
            bringup.stop()
    return found, result
