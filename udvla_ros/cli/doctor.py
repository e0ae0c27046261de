"""``udvla doctor``: look at a running graph and say what to mend before the arm moves. It moves nothing itself."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from udvla_ros.errors import ConfigError
from udvla_ros.resources import find


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the command ``doctor``."""
    parser = subparsers.add_parser(
        "doctor",
        help="check a running robot against its file, and say what to mend",
        description="Check topics, rates, QoS, joint names, limits, controller, clocks, cameras and the arbiter of a "
        "running robot against its robot file. It only listens: it publishes no command and moves nothing. "
        "Exit code 1 where something must be mended.",
    )
    parser.add_argument("--robot", help="ur5e, panda, so101, ur5e_sim, or a robot file of your own")
    parser.add_argument(
        "--bundle", help="folder of a bundle: what of it fits into memory here, and whether it fits the robot"
    )
    parser.add_argument(
        "--timeout", type=_seconds, default=5.0, metavar="S", help="seconds to listen (default: %(default)s)"
    )
    parser.add_argument("--namespace", default="", help="namespace of the graph's nodes")
    parser.add_argument(
        "--remap", type=_remap, action="append", default=[], metavar="FROM:=TO",
        help="a topic of the robot file that the graph calls otherwise, as launch's remappings; may be repeated",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the findings there")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Look, print one line per check, and return 1 where something must be mended."""
    if not (args.robot or args.bundle):
        raise ConfigError("nothing to check: give --robot, --bundle or both")
    if args.bundle:
        from udvla_ros.released.load_plan import load_plan

        print("\n".join(load_plan(find(args.bundle))))
        if not args.robot:
            return 0
    from udvla_ros.doctor import report
    from udvla_ros.doctor.judge import judge
    from udvla_ros.motion.robot import RobotDescription
    from udvla_ros.nodes.doctor import joined

    robot = RobotDescription.load(args.robot)
    bundle = _bundle_config(args.bundle) if args.bundle else None
    with joined(robot, args.namespace, dict(args.remap)) as doctor:
        seen = doctor.look(args.timeout, lambda line: print(f"{line} ...", file=sys.stderr, flush=True))
    findings = judge(robot, seen, bundle)
    for finding in findings:
        print(finding)
    print(f"{robot.name}: {report.summary(findings)}")
    if args.json:
        from udvla_ros.evaluation.report import command_line, write_report

        about = {"robot": str(robot.path), "nodes": list(seen.nodes), "seconds": seen.seconds}
        about["command"] = command_line()
        print(f"report: {write_report(args.json, report.as_dict(findings, **about))}")
    return 1 if report.worst(findings) == report.FAIL else 0


def _bundle_config(folder: str) -> object:
    """Return a bundle's configuration, without its weights."""
    from udvla_ros import resources
    from udvla_ros.errors import BundleError
    from udvla_ros.model.checkpoint import BundleConfig

    path = resources.find(folder) / "config.json"
    if not path.is_file():
        raise BundleError(f"{folder} holds no config.json; give the folder of a bundle")
    return BundleConfig.from_json(path.read_text(), str(path))


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.5 <= value <= 600.0:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds from 0.5 to 600")
    return value


def _remap(text: str) -> tuple[str, str]:
    source, separator, target = text.partition(":=")
    if not (source and separator and target):
        raise argparse.ArgumentTypeError(f"'{text}' is not of the form FROM:=TO")
    return source, target
