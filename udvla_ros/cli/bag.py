"""``udvla bag``: look at recorded episodes, mend them, draw them, and turn them into training data."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from udvla_ros.errors import UdvlaError


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add ``bag`` and its verbs."""
    bag = subparsers.add_parser("bag", help="look at recorded episodes, mend them, export them for training")
    verbs = bag.add_subparsers(dest="verb", required=True, metavar="VERB")

    parser = _verb(verbs, "list", "one line per episode at or below a folder", run_list)
    parser.add_argument("folder", type=Path, help="where the episodes were recorded to")

    parser = _verb(verbs, "info", "topics, types, QoS, labels of one episode", run_info)
    parser.add_argument("episode", type=Path, help="folder of the episode")

    parser = _verb(verbs, "check", "gaps, rates, skew, missing topics, limits; exit code 1 when bad", run_check)
    _episodes(parser)
    _robot(parser)

    parser = _verb(verbs, "repair", "make episodes whole after a kill; the originals are kept", run_repair)
    _episodes(parser)

    parser = _verb(verbs, "label", "say afterwards how episodes went, or what was asked for", run_label)
    _episodes(parser)
    parser.add_argument("--outcome", default="", choices=("", "success", "failure", "unknown"))
    parser.add_argument("--instruction", default="", metavar="SENTENCE")

    parser = _verb(verbs, "report", "draw one page per episode: pictures, joints, modes, latencies", run_report)
    _episodes(parser)
    _robot(parser)
    parser.add_argument("--out", type=Path, help="folder of the pictures (default: runs/bag/TIME)")

    parser = _verb(verbs, "export", "write episodes for training; exit code 1 where some were not fit", run_export)
    _episodes(parser)
    _robot(parser)
    parser.add_argument("--to", choices=("episodes", "lerobot"), default="episodes", help="default: %(default)s")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; must not hold anything yet")
    parser.add_argument("--outcome", default="success", help="label to take; any: all of them (default: %(default)s)")
    parser.add_argument("--hz", type=float, help="control rate (default: that of the policy's chunks, or 10)")
    parser.add_argument("--chunk", type=int, default=8, help="steps ahead in each label (default: %(default)s)")
    parser.add_argument(
        "--size", action="append", default=[], type=camera_size, metavar="CAMERA=HxW",
        help="resize a camera's pictures; default: as recorded",
    )  # fmt: skip
    parser.add_argument(
        "--camera", action="append", default=[], metavar="NAME", help="only this one; may be repeated (default: all)"
    )
    parser.add_argument(
        "--space", default="", choices=("", "tcp_delta", "joint_delta", "joint_absolute"),
        help="of the actions (default: tcp_delta, joint_delta for arms of fewer than six joints; for LeRobot where "
        "the joints were commanded to be)",
    )  # fmt: skip
    parser.add_argument("--only", choices=("corrections",), help="learn only from what a hand did after a takeover")
    parser.add_argument(
        "--before", type=float, default=2.0, metavar="S",
        help="seconds of the policy before a takeover that are no labels (default: %(default)s)",
    )  # fmt: skip

    parser = _verb(verbs, "replay", "compute each chunk again from the recorded messages and compare", run_replay)
    parser.add_argument("episode", type=Path, help="folder of the episode")
    _robot(parser)
    parser.add_argument("--bundle", required=True, help="the bundle it was recorded with")
    parser.add_argument("--device", default="cpu", help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: as policy_node takes by itself")


def _verb(verbs: Any, name: str, text: str, run: Any) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result there")
    parser.set_defaults(run=run)
    return parser


def _episodes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("episodes", type=Path, nargs="+", help="folders of episodes, or folders that hold them")


def _robot(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--robot", default="", help="robot file (default: the one it was recorded with)")


def camera_size(text: str) -> tuple[str, tuple[int, int]]:
    try:
        camera, numbers = text.split("=")
        height, width = (int(number) for number in numbers.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not CAMERA=HEIGHTxWIDTH, such as front=48x64") from None
    if min(height, width) < 1:
        raise argparse.ArgumentTypeError(f"'{text}': a picture has at least one pixel")
    return camera, (height, width)


def _folders(paths: Sequence[Path]) -> list[Path]:
    """Return the episodes at or below some folders.

    Raises:
        BagError: one of them holds none.
    """
    from udvla_ros.rollouts.bags.reader import episodes_in
    from udvla_ros.rollouts.bags.topic import BagError

    found: list[Path] = []
    for path in paths:
        below = episodes_in(path)
        if not below:
            raise BagError(f"no bag at or below '{path}'; name a recorded episode or the folder that holds them")
        found += below
    return list(dict.fromkeys(found))


def _write(args: argparse.Namespace, content: Any) -> None:
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def run_list(args: argparse.Namespace) -> int:
    """Print one line per episode."""
    from udvla_ros.rollouts.bags.listing import BROKEN, list_episodes

    lines = list_episodes(args.folder)
    for line in lines:
        print(line.text())
    broken = sum(line.state == BROKEN for line in lines)
    mend = f", {broken} broken: udvla bag repair {args.folder}" if broken else ""
    print(f"{len(lines)} episodes, {sum(line.size for line in lines) / 1e6:.1f} MB{mend}")
    _write(args, [line.as_dict() for line in lines])
    return 0


def run_info(args: argparse.Namespace) -> int:
    """Print what one bag tells of itself."""
    from udvla_ros.rollouts.bags.listing import date_of, info

    told = info(args.episode)
    began = date_of(told["began"])
    print(f"{told['folder']}: {', '.join(told['files'])}, {told['size'] / 1e6:.1f} MB")
    print(f"began {began}, {told['seconds']:.1f} s, {told['messages']} messages")
    for name, value in sorted(told["labels"].items()):
        line = " ".join(value.split())
        print(f"  {name:14} {line if len(line) < 100 else line[:99] + '…'}")
    for topic in told["topics"]:
        rate = "-" if topic["hz"] is None else f"{topic['hz']:.1f}"
        print(f"  {topic['count']:7} {rate:>7} Hz  {topic['name']:44} {topic['type']:38} {'; '.join(topic['qos'])}")
    _write(args, told)
    return 0


def run_check(args: argparse.Namespace) -> int:
    """Check episodes and print what was found."""
    from udvla_ros.rollouts.bags.check import check

    good = True
    told: list[dict[str, Any]] = []
    for folder in _folders(args.episodes):
        report = check(folder, args.robot)
        good, told = good and report.good, [*told, report.as_dict()]
        print(f"{report.folder}: {'good' if report.good else 'BAD'}, {report.seconds:.1f} s")
        for stream in report.streams:
            print(
                f"  {stream.topic:20} {stream.count:6} at {stream.hz or 0:6.1f} Hz, longest gap "
                f"{stream.longest_gap or 0:.3f} s, lost {stream.lost or 0:.1%}, "
                f"latency {stream.latency_ms_p50:.1f} ms (p99 {stream.latency_ms_p99:.1f})"
            )
        for name, value in report.numbers.items():
            print(f"  {name:36} {value:g}")
        for finding in report.findings:
            print(f"  {finding.level}: {finding.text}" + ("" if finding.at is None else f" [at {finding.at:.2f} s]"))
    _write(args, {"good": good, "episodes": told})
    return 0 if good else 1


def run_repair(args: argparse.Namespace) -> int:
    """Repair episodes and print what was lost."""
    from udvla_ros.rollouts.bags.repair import RepairReport, repair

    reports: list[RepairReport] = []
    failed: dict[str, str] = {}
    for folder in _folders(args.episodes):
        try:
            report = repair(folder)
        except UdvlaError as error:
            failed[str(folder)] = str(error)
            print(f"{folder}: not repaired: {error}")
            continue
        reports.append(report)
        done = f"wrote {', '.join(report.changed)}" if report.changed else "was whole"
        print(f"{report.folder}: {done}; {sum(report.messages.values())} messages, {report.seconds:.1f} s")
        for note in report.notes:
            print(f"  {note}")
        if report.kept:
            lost = f"{report.bytes_lost} bytes could not be read"
            if report.chunks_lost:
                lost += f", {report.chunks_lost} damaged chunks left out"
            print(f"  {lost}; the original is kept as {', '.join(report.kept)}")
    _write(args, [*(report.as_dict() for report in reports), *({"folder": f, "error": e} for f, e in failed.items())])
    return 1 if failed else 0


def run_label(args: argparse.Namespace) -> int:
    """Label episodes and print what they were labelled before."""
    from udvla_ros.rollouts.bags.relabel import relabel

    changed = {str(folder): relabel(folder, args.outcome, args.instruction) for folder in _folders(args.episodes)}
    for folder, before in changed.items():
        print(f"{folder}: {', '.join(f'{k} was {v or None!r}' for k, v in before.items()) or 'as it was'}")
    _write(args, changed)
    return 0


def run_report(args: argparse.Namespace) -> int:
    """Draw a page per episode."""
    from tqdm import tqdm

    from udvla_ros.evaluation.bags.bag_report import draw
    from udvla_ros.evaluation.report import run_folder

    folders = _folders(args.episodes)
    out = run_folder("bag", args.out)
    pages = [draw(folder, out, args.robot) for folder in tqdm(folders, unit="page", disable=len(folders) < 2)]
    for page in pages:
        print(f"wrote {page}")
    _write(args, {"pages": [str(page) for page in pages]})
    return 0


def run_export(args: argparse.Namespace) -> int:
    """Export episodes and print what was taken."""
    from udvla_ros.evaluation.report import command_line
    from udvla_ros.rollouts.bags.export import Wish, export_episodes
    from udvla_ros.rollouts.bags.lerobot import export_lerobot

    wish = Wish(
        args.outcome, args.hz, args.chunk, dict(args.size), args.robot, tuple(args.camera), args.space,
        args.only == "corrections", args.before,
    )  # fmt: skip
    folders = _folders(args.episodes)
    if args.to == "lerobot":
        report = export_lerobot(folders, args.out, wish)
    else:
        report = export_episodes(folders, args.out, wish, command_line())
    print(f"{args.out}: {len(report.taken)} episodes, {report.steps} steps")
    for folder, note in report.notes.items():
        print(f"  note on {folder}: {note}")
    for folder, reason in report.left_out.items():
        print(f"  left out {folder}: {reason}")
    _write(args, report.as_dict())
    return 1 if report.unfit else 0


def run_replay(args: argparse.Namespace) -> int:
    """Compute an episode's chunks again and print how they compare."""
    from udvla_ros.evaluation.bags.bag_replay import replay

    report = replay(args.episode, args.bundle, args.robot, args.device, args.threads)
    for chunk in report["chunks"]:
        apart = "" if chunk["largest"] is None else f", {chunk['largest']:.2g} rad apart at most"
        reason = f": {chunk['reason']}" if chunk["reason"] else ""
        print(f"  chunk {chunk['chunk']:4} at {chunk['at']:7.2f} s: {chunk['verdict']}{apart}{reason}")
    print(f"{args.episode}: {report['equal']} of {report['compared']} chunks equal, {report['skipped']} not comparable")
    _write(args, report)
    return 0 if report["ok"] else 1
