"""``udvla robot new | check``: write a robot file, and look one over."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from udvla_ros.errors import ConfigError


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add ``robot`` and its verbs."""
    robot = subparsers.add_parser("robot", help="write a robot file, and look one over")
    verbs = robot.add_subparsers(dest="verb", required=True, metavar="new|check")

    parser = verbs.add_parser(
        "new", help="write a robot file from a URDF or the running driver",
        description="Write FILE and its URDF beside it: from robot_description and the topics that are there (5 s of "
        "listening, nothing moves), or from --urdf alone. Lines marked LOOK are for you.",
    )  # fmt: skip
    parser.add_argument("file", type=Path, help="such as my_arm.yaml; must not exist yet")
    parser.add_argument("--urdf", type=Path, help="instead of the topic robot_description; then no graph is needed")
    parser.add_argument("--base", default="", help="link that poses are relative to (default: the chain's first)")
    parser.add_argument("--tcp", default="", help="link between the fingers (default: the most telling at the end)")
    parser.add_argument("--no-gripper", action="store_true", help="an arm without one")
    parser.add_argument("--camera", action="append", default=[], metavar="NAME=TOPIC", help="may be repeated, up to 4")
    parser.add_argument("--timeout", type=float, default=5.0, metavar="S", help="of listening (default: %(default)s)")
    parser.add_argument("--namespace", default="", help="of the driver's topics")
    parser.set_defaults(run=run_new)

    parser = verbs.add_parser("check", help="look a robot file over without the robot; exit code 1 where it fails")
    parser.add_argument("file", help="a robot file, or the name of a shipped one")
    parser.add_argument("--bundle", help="folder of a bundle: does it fit?")
    parser.set_defaults(run=run_check)


def run_new(args: argparse.Namespace) -> int:
    """Write the file and say what to look at."""
    from udvla_ros.robots.check import look_over
    from udvla_ros.robots.new import LOOK, Seen, write_robot_file

    if args.file.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"{args.file} is no name of a robot file; give one that ends in .yaml")
    if args.urdf:
        if not args.urdf.is_file():
            raise ConfigError(f"{args.urdf} does not exist; give a URDF")
        seen = Seen(urdf=args.urdf.read_bytes())
    else:
        if "ROS_DISTRO" not in os.environ:
            os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)
        from udvla_ros.nodes.robot_scan import scan

        seen = scan(args.timeout, args.namespace)
        if not seen.urdf:
            raise ConfigError(
                f"no robot_description is heard within {args.timeout:g} s: is the driver running, in this "
                "ROS_DOMAIN_ID? or give the file: --urdf my_arm.urdf"
            )
    for text in args.camera:
        name, separator, topic = text.partition("=")
        if not (name and separator and topic):
            raise ConfigError(f"--camera {text} is not of the form NAME=TOPIC")
        seen.cameras[name] = topic
    robot = write_robot_file(args.file, seen, args.base, args.tcp, not args.no_gripper)
    print(f"wrote {args.file} and {args.file.with_suffix('.urdf').name}")
    for level, line in look_over(robot):
        print(f"{level:4} {line}")
    print(f"next: look at the lines marked {LOOK}, then: udvla doctor --robot {args.file}")
    return 0


def run_check(args: argparse.Namespace) -> int:
    """Print what is found."""
    from udvla_ros.motion.robot import RobotDescription
    from udvla_ros.robots.check import look_over

    bundle = None
    if args.bundle:
        from udvla_ros.cli.doctor import _bundle_config

        bundle = _bundle_config(args.bundle)
    found = look_over(RobotDescription.load(args.file), bundle)
    for level, line in found:
        print(f"{level:4} {line}")
    return int(any(level == "fail" for level, _ in found))
