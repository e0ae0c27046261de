"""``udvla learn``: recorded bags and a bundle in, a bundle that knows the new task out."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from udvla_ros.errors import ConfigError


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the command ``learn``."""
    parser = subparsers.add_parser(
        "learn",
        help="turn recorded bags and a bundle into a bundle that knows the task",
        description="Export the bags at the bundle's sizes, train on from it, and judge the child against its parent "
        "on episodes held out. A child that is worse is not released (exit code 1). Run again, it goes on.",
    )
    parser.add_argument("bags", type=Path, nargs="+", help="folders of bags, data sets, or one archive of --pack")
    parser.add_argument("--bundle", default="models/udvla-nano-ur5e", help="the parent (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the child; an unfinished one goes on")
    parser.add_argument("--name", default="", help="of the child (default: the folder's)")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=float, default=30.0, help="for the policy (default: %(default)s)")
    budget.add_argument("--steps", type=int, help="optimiser steps instead of minutes")
    parser.add_argument(
        "--vision-minutes", type=float, default=0.0, metavar="MIN",
        help="train the eyes on first: new objects, another light, other cameras (default: keep the parent's)",
    )  # fmt: skip
    parser.add_argument("--outcome", default="success", help="label to take; any: all of them (default: %(default)s)")
    parser.add_argument("--only", choices=("corrections",), help="learn only from what a hand did after a takeover")
    parser.add_argument("--corrections", type=float, default=3.0, metavar="X", help="drawn so much more often (def. 3)")
    parser.add_argument("--before", type=float, default=2.0, metavar="S", help="of policy before a takeover: no label")
    parser.add_argument("--rehearse", nargs="*", default=[], metavar="DATA", help="data sets of what the parent knew")
    parser.add_argument("--camera", action="append", default=[], metavar="NAME", help="only this one; may be repeated")
    parser.add_argument("--space", default="", choices=("", "tcp_delta", "joint_delta", "joint_absolute"))
    parser.add_argument("--hz", type=float, help="control rate (default: the parent's)")
    parser.add_argument("--chunk", type=int, help="steps of a chunk (default: the parent's)")
    parser.add_argument("--robot", default="", help="robot file (default: the one it was recorded with)")
    parser.add_argument("--scenes", type=int, default=0, metavar="N", help="judge in simulation too, N scenes a task")
    parser.add_argument("--condition", default="plain", help="of these scenes: plain, distractors, light or camera")
    parser.add_argument("--config", default="config/training/nano.yaml", help="training file (default: %(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="", help="cpu or cuda (default: cuda where there is one)")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--pack", type=Path, metavar="FILE", help="train elsewhere: write this .tar.gz and stop")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prepare, train, judge, release."""
    from udvla_ros.cli.bag import _folders
    from udvla_ros.learning.plan import LearnOptions
    from udvla_ros.learning.sets import is_set
    from udvla_ros.sim.sampler import CONDITIONS

    if args.condition not in CONDITIONS:
        raise ConfigError(f"no --condition {args.condition}; there are {', '.join(CONDITIONS)}")
    if (args.out / "bundle").exists():
        raise ConfigError(f"{args.out} holds a finished child; name another --out")
    if args.out.exists() and not args.out.is_dir():
        raise ConfigError(f"{args.out} is a file; name a folder for --out")
    archive = args.bags[0] if len(args.bags) == 1 and args.bags[0].is_file() else None
    sets = [folder for folder in args.bags if is_set(folder)]
    if sets and len(sets) < len(args.bags):
        raise ConfigError(f"{sets[0]} is a data set and others are bags; make data of these too: udvla bag export")
    folders = [] if archive or is_set(args.out / "data") else sets or _folders(args.bags)
    if args.device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"
    from udvla_ros.training.memory import keep_freed_memory

    keep_freed_memory()  # before torch allocates anything
    import torch

    from udvla_ros.learning import archive as travel
    from udvla_ros.learning.run import Learn
    from udvla_ros.model.checkpoint import checked_device

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    checked_device(device)
    if args.threads:
        torch.set_num_threads(args.threads)
    options = LearnOptions(
        minutes=args.minutes, steps=args.steps, vision_minutes=args.vision_minutes, corrections=args.corrections,
        outcome=args.outcome, only_corrections=args.only == "corrections", before=args.before, hz=args.hz,
        chunk=args.chunk, space=args.space, cameras=tuple(args.camera), robot=args.robot, rehearse=tuple(args.rehearse),
        scenes=args.scenes, condition=args.condition, config=args.config, name=args.name, seed=args.seed,
        settings=tuple(args.settings),
    )  # fmt: skip
    parent = args.bundle
    if archive is not None:
        found, options = travel.unpack(archive, args.out)
        parent = str(found)
    learn = Learn(parent, args.out, options)
    exported = learn.prepare(folders) if folders else {}
    for name, report in exported.items():
        print(f"{name}: {len(report['taken'])} episodes, {report['steps']} steps to learn from")
        for folder, reason in report["left_out"].items():
            print(f"  left out {folder}: {reason}")
    if args.pack:
        travel.pack(args.out, learn.parent_path, args.pack)
        print(f"wrote {args.pack}; there: udvla learn {args.pack.name} --out OUT --device cuda; back: OUT/bundle")
        return 0
    try:
        candidate = learn.train()
    except KeyboardInterrupt:
        print(f"\nstopped; the same command goes on from {args.out / 'run'}")
        return 130
    verdict = learn.judge(candidate, device)
    bundle = learn.release(candidate, verdict, exported)
    print(f"{verdict['why']}; report: {args.out / 'report.json'}, report.png, run/predictions.png")
    if bundle is None:
        print(f"not released: the child is worse than its parent; it is kept in {candidate}")
        return 1
    print(f"released: {bundle}")
    return 0
