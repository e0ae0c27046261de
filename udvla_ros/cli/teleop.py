"""``udvla teleop``: become ``teleop_node`` in this terminal."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the command ``teleop``."""
    parser = subparsers.add_parser(
        "teleop",
        help="take the arm over by hand: keyboard, gamepad or leader arm",
        description="Take over from the policy by hand, beside a graph that runs. The keyboard works in any terminal, "
        "over ssh too; press h for its keys.",
    )
    parser.add_argument(
        "source", nargs="?", default="keyboard", choices=["keyboard", "joy", "leader"], help="default: %(default)s"
    )
    parser.add_argument("--robot", help="robot file (default: config/robots/ur5e.yaml, with --sim ur5e_sim.yaml)")
    parser.add_argument("--sim", action="store_true", help="beside the sim graph: its robot, on this machine alone")
    parser.add_argument("--loopback", action="store_true", help="keep ROS 2 traffic on this machine, as --sim does")
    parser.add_argument("--speed", type=float, help="speed scale at the start, up to 1 (default: 0.4)")
    parser.add_argument("--mapping", help="which axis and button of the gamepad does what")
    parser.add_argument("--leader", help="joints and scale of the leader arm")
    parser.add_argument("--deadman", choices=["topic", "joy", "keyboard"], help="of a leader arm (default: topic)")
    parser.add_argument("--params-file", type=Path, metavar="YAML", help="parameters of your own")
    parser.add_argument("--namespace", default="", help="of the graph")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Replace this process by the node, so that the terminal and its signals are the node's alone."""
    from udvla_ros import graph
    from udvla_ros.bringup import loopback_environment
    from udvla_ros.resources import find

    robot = args.robot or f"config/robots/{'ur5e_sim' if args.sim else 'ur5e'}.yaml"
    given = {"mapping": args.mapping, "leader": args.leader, "deadman": args.deadman, "speed": args.speed}
    files = ["config/teleop_node.yaml", *([str(args.params_file)] if args.params_file else [])]
    node = graph.ResolvedNode(
        executable="teleop_node", module="udvla_ros.nodes.teleop_node", name="teleop_node", namespace=args.namespace,
        parameter_files=tuple(str(find(path)) for path in files),
        parameters={"robot": robot, "source": args.source} | {k: v for k, v in given.items() if v is not None},
    )  # fmt: skip
    env = loopback_environment() if args.sim or args.loopback else dict(os.environ)
    if "ROS_DISTRO" not in env:
        env.setdefault("AMENT_PREFIX_PATH", sys.prefix)
    command = graph.command_line(node, sys.executable)
    sys.stdout.flush()
    os.execve(command[0], command, env)
