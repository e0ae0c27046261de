"""``udvla view``: a recorded episode on the operator's page, with a slider of time."""

from __future__ import annotations

import argparse
from pathlib import Path

from udvla_ros.cli.console import add_address, serve_recordings


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the command ``view``."""
    parser = subparsers.add_parser(
        "view",
        help="a recorded episode on the operator's page, with a slider of time",
        description="Show a recorded episode as the operator saw it, or would have seen it. Needs no ROS.",
    )
    parser.add_argument("bag", type=Path, help="an episode's folder, or a folder of episodes")
    add_address(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve it until Ctrl-C."""
    from udvla_ros.rollouts.bags.reader import Bag, episodes_in
    from udvla_ros.rollouts.bags.topic import BagError

    found = episodes_in(args.bag)
    if not found:
        raise BagError(f"'{args.bag}' holds no episode; name the folder of a recorded one, or one that holds them")
    if found != [args.bag]:
        return serve_recordings(args.bag, "", args)
    with Bag(args.bag):  # what is wrong with it is said here, not on the page
        pass
    return serve_recordings(args.bag.resolve().parent, args.bag.resolve().name, args)
