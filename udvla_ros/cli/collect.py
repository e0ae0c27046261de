"""``udvla collect``: demonstration after demonstration of one task, recorded as bags."""

from __future__ import annotations

import argparse
import sys


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the command ``collect``."""
    parser = subparsers.add_parser(
        "collect",
        help="record demonstrations of a task, one after the other",
        description="Beside a graph that runs with record:=true record_auto:=false: says the sentence, starts and ends "
        "the recording at your key, counts, undoes, tells what is covered. You drive with `udvla teleop` and watch "
        "the cameras in your viewer.",
    )
    parser.add_argument("--task", action="append", required=True, metavar="SENTENCE", help="may be repeated: in turn")
    parser.add_argument("--episodes", type=int, default=50, help="successes to collect (default: %(default)s)")
    parser.add_argument("--robot", default="", help="robot file (default: ur5e, with --sim ur5e_sim)")
    parser.add_argument("--sim", action="store_true", help="the simulated arm: the scene is set anew each time")
    parser.add_argument("--scene", default="", metavar="TASK", help="with --sim: of the scenes, such as push/red")
    parser.add_argument("--seed", type=int, default=0, help="with --sim: of the first scene")
    parser.add_argument("--namespace", default="", help="of the graph")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Collect, and say what comes next; 1 where fewer than wanted were collected."""
    from udvla_ros.cli.operate import _joined
    from udvla_ros.motion.robot import RobotDescription
    from udvla_ros.rollouts.collecting import Collection

    collection = Collection(args.task, args.episodes)
    robot = RobotDescription.load(args.robot or ("ur5e_sim" if args.sim else "ur5e"))
    with _joined(args) as operator:
        from udvla_ros.nodes.collect import Collector

        def scene(number: int) -> None:
            operator.scene(seed=args.seed + number, task=args.scene or None)

        def tell(line: str) -> None:
            print(line, flush=True)

        collector = Collector(operator, robot, collection, tell, scene if args.sim else None)
        good = collector.run(sys.stdin)
    folders = sorted({str(episode.folder.parent) for episode in collection.kept})
    if folders:
        print(f"next: udvla bag check {' '.join(folders)}; udvla learn {' '.join(folders)} --out runs/mine")
    return int(good < args.episodes)
