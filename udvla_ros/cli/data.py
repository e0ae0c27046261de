"""``udvla data``: generate demonstrations in simulation, and look at them."""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from udvla_ros.cli.bag import camera_size
from udvla_ros.errors import TokenError

if TYPE_CHECKING:
    import numpy as np

    from udvla_ros.rollouts.record import Driver


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add ``data generate`` and ``data inspect``."""
    data = subparsers.add_parser("data", help="generate and look at demonstration episodes")
    verbs = data.add_subparsers(dest="verb", required=True, metavar="generate|import|merge|inspect")

    parser = verbs.add_parser("generate", help="let the scripted expert demonstrate tasks in simulation")
    add_generate_arguments(parser)
    parser.set_defaults(run=run_generate)

    parser = verbs.add_parser("import", help="a LeRobotDataset (v3.0, v2.1) as episodes to learn from")
    parser.add_argument("folder", type=Path, help="its folder, with meta/ and data/")
    parser.add_argument("--robot", required=True, help="robot file of the arm it was recorded with")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument(
        "--camera", action="append", default=[], type=_pair, metavar="NAME=FEATURE",
        help="the robot's camera and the data set's feature (default: each by its own name)",
    )  # fmt: skip
    parser.add_argument("--size", action="append", default=[], type=camera_size, metavar="CAMERA=HEIGHTxWIDTH")
    parser.add_argument("--chunk", type=positive, default=8, help="steps of labels at each step (default: %(default)s)")
    parser.add_argument("--space", default="", choices=("", "tcp_delta", "joint_delta", "joint_absolute"))
    parser.add_argument("--degrees", action="store_true", help="the arm's joints are in degrees")
    parser.add_argument(
        "--gripper", nargs=2, type=float, metavar=("OPEN", "CLOSED"),
        help="the data set's values of an open and a closed gripper (default: the robot file's)",
    )  # fmt: skip
    parser.set_defaults(run=run_import)

    parser = verbs.add_parser("merge", help="several data sets as one, or more into one that is there")
    parser.add_argument("folders", type=Path, nargs="+", help="data sets of the same cameras and actions")
    parser.add_argument("--out", type=Path, required=True, help="a new folder, or a data set that grows")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the description as JSON")
    parser.set_defaults(run=run_merge)

    parser = verbs.add_parser("inspect", help="summarise a folder of episodes, or draw some of them")
    parser.add_argument("folder", type=Path, help="folder written by 'udvla data generate'")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="draw a sheet of the first episodes")
    parser.add_argument("--episodes", type=int, default=6, help="on the sheet (default: %(default)s)")
    parser.add_argument("--labels", action="store_true", help="say how well labels, execution and future agree")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the summary as JSON")
    parser.set_defaults(run=run_inspect)


def positive(text: str) -> int:
    """Return a whole number of at least 1, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def add_generate_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``generate`` takes."""
    parser.add_argument("--out", type=Path, required=True, help="folder; an interrupted run is resumed")
    parser.add_argument("--episodes", type=int, default=1000, help="successful ones (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first episode, < 1000000 (default: 0)")
    parser.add_argument("--workers", type=positive, default=1, help="processes (default: %(default)s)")
    parser.add_argument(
        "--suite", default="tabletop", help="tabletop, or libero_object, libero_spatial, libero_goal, libero_10, ..."
    )
    parser.add_argument(
        "--tasks", help="in turn: kinds (default: touch,pick,push,place); of LIBERO numbers, such as 0-2 (default: all)"
    )
    parser.add_argument("--noise", type=float, default=1.0, help="factor on the expert's noise (default: 1)")
    parser.add_argument("--tray", type=float, default=0.25, help="share of scenes with an idle tray (default: 0.25)")
    parser.add_argument("--distractors", type=float, default=0.0, help="share of each distractor (default: 0)")
    parser.add_argument("--light", type=float, default=0.0, help="half range of the light's factor (default: 0)")
    parser.add_argument("--camera", type=float, default=0.0, help="camera jitter, times 6 mm and 0.01 rad (default: 0)")
    parser.add_argument(
        "--policy", type=Path, metavar="BUNDLE",
        help="this policy acts, its chunks 0 to 2 steps late; the labels are what the expert would do (DAgger)",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the description there")


def run_generate(args: argparse.Namespace) -> int:
    """Generate a data set and print its description."""
    from udvla_ros.rollouts.generate import Config, generate

    if args.suite != "tabletop":
        return generate_libero(args)
    args.tasks = args.tasks or "touch,pick,push,place"
    tasks = tuple(kind.strip() for kind in args.tasks.split(",") if kind.strip())
    policy = str(args.policy) if args.policy else ""
    config = Config(
        args.episodes, args.seed, tasks, args.noise, args.tray, args.distractors, args.light, args.camera, policy
    )
    driver = partial(load_driver, policy) if policy else None
    _print(generate(args.out, config, args.workers, make_driver=driver), args.json)
    return 0


def generate_libero(args: argparse.Namespace) -> int:
    """Generate a data set of a LIBERO suite, in the interpreter that has LIBERO."""
    from udvla_ros.resources import roots
    from udvla_ros.sim.libero.install import enter

    enter(roots()[0])
    from udvla_ros.rollouts.generate import GenerateError, generate
    from udvla_ros.rollouts.libero import SHARD, LiberoConfig
    from udvla_ros.sim.libero.suites import chosen

    if args.policy:
        raise GenerateError("--policy works on the tabletop alone; leave it out with --suite")
    numbers = tuple(task.index for task in chosen(args.suite, args.tasks or "all"))
    config = LiberoConfig(args.episodes, args.seed, args.suite, numbers, args.noise)
    _print(generate(args.out, config, args.workers, shard=SHARD), args.json)
    return 0


def load_driver(bundle: str) -> Driver:
    """Return the policy of a bundle as :func:`udvla_ros.rollouts.record.correct` wants one."""
    from udvla_ros.policy.policy import Observation, Policy

    policy = Policy.load(bundle, threads=1)
    options = policy.options(steps=4)  # half the time for nearly the same chunks

    def act(images: dict[str, np.ndarray], sentence: str, seed: int) -> np.ndarray | None:
        try:
            return policy.infer(Observation(images, sentence), options, seed).actions
        except TokenError:  # a chunk that cannot be read is refused; the one before goes on
            return None

    return act


def _pair(text: str) -> tuple[str, str]:
    name, sign, feature = text.partition("=")
    if not (name and sign and feature):
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=FEATURE")
    return name, feature


def run_import(args: argparse.Namespace) -> int:
    """Import a LeRobotDataset and print how many episodes it gave."""
    from udvla_ros.evaluation.report import command_line
    from udvla_ros.motion.robot import RobotDescription
    from udvla_ros.rollouts.lerobot_in import Reading, import_lerobot

    reading = Reading(
        dict(args.camera), dict(args.size), args.chunk, args.space, args.degrees,
        tuple(args.gripper) if args.gripper else None,
    )  # fmt: skip
    count = import_lerobot(args.folder, args.out, RobotDescription.load(args.robot), reading, command_line())
    print(f"{args.out}: {count} episodes; next: udvla data inspect {args.out}; udvla learn {args.out} --out runs/mine")
    return 0


def run_merge(args: argparse.Namespace) -> int:
    """Merge data sets and print the description."""
    from udvla_ros.rollouts.merge import merge

    _print(merge(args.folders, args.out), args.json)
    return 0


def run_inspect(args: argparse.Namespace) -> int:
    """Print the description of a data set, and draw a sheet if asked."""
    from udvla_ros.rollouts.agreement import agreement
    from udvla_ros.rollouts.episodes import read_description, read_episodes
    from udvla_ros.rollouts.sheet import write_sheet

    description = read_description(args.folder)
    if args.labels:
        description["agreement"] = agreement(
            read_episodes(args.folder), (description.get("action", {}).get("scale") or [1.0])[0]
        )
    _print(description, args.json)
    if args.sheet:
        write_sheet(args.folder, args.sheet, args.episodes)
        print(f"wrote {args.sheet}")
    return 0


def _print(description: dict, also: Path | None) -> None:
    text = json.dumps(description, indent=2)
    print(text)
    if also:
        also.write_text(text + "\n")
