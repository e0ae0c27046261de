"""``udvla console``: the operator's page, beside a running graph or (``udvla view``) on recorded episodes."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
from pathlib import Path


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the command ``console``."""
    parser = subparsers.add_parser(
        "console",
        help="the operator's page: see what it sees and foresees, engage, hold, stop",
        description="Serve the operator's page beside a graph that runs. It asks the services and parameters that "
        "everybody has, and nothing else.",
    )
    parser.add_argument("--robot", help="robot file (default: config/robots/ur5e.yaml, with --sim ur5e_sim.yaml)")
    parser.add_argument("--sim", action="store_true", help="beside the sim graph: its robot, on this machine alone")
    parser.add_argument("--loopback", action="store_true", help="keep ROS 2 traffic on this machine, as --sim does")
    parser.add_argument("--namespace", default="", help="of the graph")
    parser.add_argument("--episodes", default="runs/bags", metavar="DIR", help="recorded ones (default: %(default)s)")
    add_address(parser)
    parser.set_defaults(run=run)


def add_address(parser: argparse.ArgumentParser) -> None:
    """Add where to listen."""
    parser.add_argument(
        "--host", default="127.0.0.1", help="to listen on; beyond this machine a token is needed (default: %(default)s)"
    )
    parser.add_argument("--port", type=int, default=8080, help="default: %(default)s; 0: any that is free")
    parser.add_argument("--token", default="", help="to be given with every request (default: drawn where needed)")


def run(args: argparse.Namespace) -> int:
    """Replace this process by the node."""
    from udvla_ros import graph
    from udvla_ros.bringup import loopback_environment

    robot = args.robot or f"config/robots/{'ur5e_sim' if args.sim else 'ur5e'}.yaml"
    given = {"host": args.host, "port": args.port, "token": args.token, "episodes": args.episodes}
    node = graph.ResolvedNode(
        executable="console_node", module="udvla_ros.nodes.console_node", name="console_node",
        namespace=args.namespace, parameters={"robot": robot, **given},
    )  # fmt: skip
    env = loopback_environment() if args.sim or args.loopback else dict(os.environ)
    if "ROS_DISTRO" not in env:
        env.setdefault("AMENT_PREFIX_PATH", sys.prefix)
    command = graph.command_line(node, sys.executable)
    sys.stdout.flush()
    os.execve(command[0], command, env)


def serve_recordings(folder: Path, episode: str, args: argparse.Namespace) -> int:
    """Serve the page on a folder of bags until Ctrl-C; no ROS is needed."""
    from udvla_ros.console.hub import Hub
    from udvla_ros.console.server import Server

    async def serve() -> None:
        server = Server(Hub(), host=args.host, port=args.port, token=args.token, episodes=folder, episode=episode)
        await server.start()
        print(f"{episode or folder} is shown at {server.address} (Ctrl-C ends it)", flush=True)
        await asyncio.Event().wait()

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve())
    return 0
