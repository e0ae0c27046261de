"""``udvla eval faults``: break the running graph in every way we know of, and measure what the arm does."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

LINE = "break the running graph and measure what the arm does"


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the command ``eval faults``."""
    parser = subparsers.add_parser(
        "faults",
        help=LINE,
        description="Start the whole simulated graph as separate processes, break one thing at a time while the policy "
        "moves the arm, and report time to rest, the worst step, limit violations and whether anything resumed by "
        "itself. Before that come the faults between the arbiter and its controller, in simulated time and without "
        "processes, where all that the controller writes is audited. Exit code 1 when a fault was not borne as it must "
        "be.",
    )
    parser.add_argument("--only", metavar="NAME", help="faults whose name contains this; several with commas")
    parser.add_argument("--link", action="store_true", help="those between arbiter and controller alone: seconds")
    parser.add_argument("--quick", action="store_true", help="fewer repeats and switches: about three minutes")
    parser.add_argument("--bundle", default="models/udvla-nano-ur5e", help="folder (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of scenes and moments (default: 0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the report there")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: runs/faults/<time>")
    parser.add_argument("--domain", type=int, help="ROS domain (default: one drawn from the process id)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the faults, print a table, write ``report.json`` and ``faults.png``."""
    if not args.link:
        from udvla_ros.proving.rigs import fault_runner  # first of all: rclpy's wheels may start this Python anew
    import os
    import sys

    import numpy as np
    from tqdm import tqdm

    from udvla_ros.bringup import BringupError, loopback_environment
    from udvla_ros.evaluation import report as files
    from udvla_ros.motion.robot import RobotDescription
    from udvla_ros.proving.faults import graph, link, report, scenarios

    known: list[scenarios.HasName] = [*link.FAULTS, *(() if args.link else scenarios.SCENARIOS)]
    picked = scenarios.chosen(args.only, known)
    wanted = [fault for fault in picked if isinstance(fault, scenarios.Scenario)]
    folder = files.run_folder("faults", args.out)
    load = os.getloadavg()[0]
    arm = RobotDescription.load("ur5e")
    outcomes = [link.run(f, arm) for f in tqdm(picked, unit="fault", mininterval=0.5) if isinstance(f, link.LinkFault)]
    trouble, cpu = "", []
    if wanted:
        from udvla_ros.proving.rigs.fault_operator import FaultError

        file = graph.robot_file(folder)
        domain = args.domain if args.domain is not None else 1 + os.getpid() % 100
        os.environ.update(loopback_environment(domain=domain))
        nodes = graph.nodes(file, bundle=args.bundle, seed=str(args.seed))
        print(f"starting {', '.join(node.name for node in nodes)}; their logs: {folder / 'logs'}", flush=True)
        robot = RobotDescription.load(file)
        try:
            with fault_runner.running(
                nodes, dict(os.environ), robot, folder / "logs", quick=args.quick, seed=args.seed
            ) as (runner, operator):
                bar = tqdm(wanted, unit="fault", mininterval=0.5)
                for scenario in bar:
                    bar.set_description(scenario.name)
                    outcomes.append(runner.run(scenario, bar.set_postfix_str))
                cpu = operator.cpu
        except (BringupError, FaultError) as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            trouble = f"{lines[0]}{' ' + lines[-1] if len(lines) > 1 else ''}"
    result: dict[str, Any] = {
        "faults": [outcome.row() for outcome in outcomes],
        "passed": not trouble and not any(outcome.faults() for outcome in outcomes),
        "quick": args.quick, "bundle": args.bundle, "seed": args.seed, "load_at_start": load,
        "arbiter_cpu_percent": dict(zip(("p50", "p95"), np.percentile(cpu, (50, 95)).tolist(), strict=True))
        if cpu else None,
        "command": files.command_line(),
    }  # fmt: skip
    if trouble:
        result["error"] = trouble
    written = files.write_report(folder / "report.json", result)
    if args.json:
        files.write_report(args.json, result)
    if outcomes:
        print(f"wrote {report.plot(folder / 'faults.png', outcomes)}")
    print(report.table(result))
    print(f"report: {args.json or written}")
    if trouble:
        print(f"udvla eval faults: {trouble} (logs: {folder / 'logs'})", file=sys.stderr)
    return 0 if result["passed"] else 1
