"""A folder of episodes in one line each, and one episode in full."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from udvla_ros.errors import UdvlaError
from udvla_ros.rollouts.bags import metadata
from udvla_ros.rollouts.bags.episode import INSTRUCTION
from udvla_ros.rollouts.bags.reader import Bag, episodes_in, what_is_broken
from udvla_ros.rollouts.bags.topic import BagError

WHOLE, BROKEN = "whole", "broken"


def date_of(seconds: float) -> str:
    """Return a time in s since 1970 as local date and time; a question mark where it is none."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else "?"
    except (ValueError, OverflowError, OSError):
        return "?"


@dataclass(frozen=True)
class Line:
    """One episode: ``began`` in s since 1970, ``reason`` why it is broken."""

    folder: str
    began: float = 0.0
    seconds: float = 0.0
    instruction: str = ""
    outcome: str = ""
    bundle: str = ""
    size: int = 0
    state: str = WHOLE
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the line for JSON."""
        return asdict(self)

    def text(self, width: int = 36) -> str:
        """Return the line for people."""
        date, words = date_of(self.began), " ".join(self.instruction.split())
        words = words if len(words) <= width else words[: width - 1] + "…"
        state = f"{self.state}: {' '.join(self.reason.split())}" if self.reason else self.state
        return (
            f"{date:19}  {self.seconds:6.1f} s  {self.size / 1e6:7.1f} MB  {self.outcome or '-':11}  "
            f"{words or '-':{width}}  {self.bundle or '-':16}  {state:5}  {self.folder}"
        )


def list_episodes(folder: Path) -> list[Line]:
    """Return a line for each episode at or below a folder, the oldest first.

    Raises:
        BagError: there is no such folder.
    """
    lines = [line_of(found) for found in episodes_in(folder)]
    return sorted(lines, key=lambda line: (line.began, line.folder))


def line_of(folder: Path) -> Line:
    """Return an episode's line; of a broken one what ``metadata.yaml`` still tells."""
    told = Told()
    reason = what_is_broken(folder)
    try:
        if not reason:
            with Bag(folder) as bag:
                counted = metadata.read(folder).count
                if counted != bag.count:
                    reason = f"metadata.yaml counts {counted} messages, the files hold {bag.count}"
                told = Told(bag.labels, bag.start * 1e-9, bag.duration, bag.labels.get("instruction") or _said(bag))
    except UdvlaError as error:
        reason = str(error)
    except Exception as error:  # one odd bag must not end the list of the others
        reason = f"{type(error).__name__}: {error}"
    if reason:
        told = _what_is_told(folder)
    labels = told.labels
    return Line(
        str(folder), told.began, told.seconds, told.instruction, labels.get("outcome", ""),
        labels.get("bundle") or labels.get("bundle_hash", "")[:12], _size(folder), BROKEN if reason else WHOLE, reason,
    )  # fmt: skip


class Told(NamedTuple):
    """What a bag says of itself; times in s."""

    labels: Mapping[str, str] = {}
    began: float = 0.0
    seconds: float = 0.0
    instruction: str = ""


def _size(folder: Path) -> int:
    try:
        return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    except OSError:
        return 0


def _what_is_told(folder: Path) -> Told:
    try:
        told = metadata.read(folder)
    except BagError:
        return Told()
    return Told(told.custom, told.start * 1e-9, told.duration * 1e-9, told.custom.get("instruction", ""))


def _said(bag: Bag) -> str:
    said = [message.data for _, _, message in bag.read(INSTRUCTION)]
    return said[-1] if said else ""


def info(folder: Path) -> dict[str, Any]:
    """Return all that a bag tells of itself.

    Raises:
        BagError: it cannot be read.
    """
    with Bag(folder) as bag:
        return {
            "folder": str(bag.folder),
            "files": [path.name for path in bag.files],
            "size": bag.size,
            "began": bag.start * 1e-9,
            "seconds": bag.duration,
            "messages": bag.count,
            "labels": bag.labels,
            "topics": [
                {
                    "name": topic.name, "type": topic.type, "count": topic.count,
                    "hz": round(topic.count / bag.duration, 2) if bag.duration else None,
                    "type_hash": topic.type_hash, "qos": [
                        f"{p.get('reliability')}, {p.get('durability')}, depth {p.get('depth')}"
                        for p in metadata.profiles(topic.qos)
                    ],
                }
                for topic in sorted(bag.topics.values(), key=lambda topic: topic.name)
            ],
        }  # fmt: skip
