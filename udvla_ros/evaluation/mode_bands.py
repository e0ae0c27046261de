"""Who had the arm, and when: modes as bands, in numbers and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from udvla_ros.evaluation import pictures

COLOURS = {  # RGB
    "POLICY": (46, 125, 50),
    "TELEOP": (230, 126, 0),
    "HOLD": (144, 164, 174),
    "STOPPED": (198, 40, 40),
}
UNKNOWN = (200, 200, 200)
WIDTH, HEIGHT, MARGIN = 900, 34, 8  # px
LABEL = 60  # px from which on a band carries its name


@dataclass(frozen=True)
class ModeChange:
    """The arbiter's mode from ``time`` (s) on, and its reason."""

    time: float
    mode: str
    reason: str = ""


@dataclass(frozen=True)
class Band:
    """One mode from ``begin`` to ``end``, s after the episode began."""

    begin: float
    end: float
    mode: str
    reason: str

    def as_dict(self) -> dict[str, object]:
        """Return it as a report lists it."""
        return {
            "mode": self.mode,
            "from_s": round(self.begin, 2),
            "to_s": round(self.end, 2),
            "reason": self.reason,
        }


def bands(changes: Sequence[ModeChange], began: float, ended: float) -> list[Band]:
    """Return the bands between ``began`` and ``ended``; of a mode named twice in a row the first reason stays."""
    found: list[Band] = []
    for k, change in enumerate(changes):
        begin = max(change.time, began)
        end = min(changes[k + 1].time if k + 1 < len(changes) else ended, ended)
        if end <= begin:
            continue
        if found and found[-1].mode == change.mode:
            first = found.pop()
            found.append(Band(first.begin, end - began, first.mode, first.reason))
            continue
        found.append(Band(begin - began, end - began, change.mode, change.reason))
    return found


def seconds_in(listed: Sequence[Band], mode: str) -> float:
    """Return the time spent in a mode."""
    return sum(band.end - band.begin for band in listed if band.mode == mode)


def strip(listed: Sequence[Band], longest: float, width: int = WIDTH) -> np.ndarray:
    """Return the bands as a strip [HEIGHT, width, 3], ``longest`` s wide."""
    image = pictures.blank(HEIGHT, width, pictures.PALE)
    for band in listed:
        left, right = (round(t / max(longest, 1e-9) * (width - 1)) for t in (band.begin, band.end))
        image[:, left : max(right, left + 1)] = COLOURS.get(band.mode, UNKNOWN)
        if right - left >= LABEL:
            text = f"{band.mode} {band.end - band.begin:.1f} s"
            cv2.putText(image, text, (left + 4, HEIGHT - 11), pictures.FONT, 0.42, pictures.WHITE, 1, cv2.LINE_AA)
    return image


def picture(rows: Sequence[tuple[str, Sequence[Band]]]) -> np.ndarray:
    """Return one line of text and one strip per episode, all on one scale of time.

    Raises:
        ValueError: no rows.
    """
    if not rows:
        raise ValueError("a picture of modes needs at least one episode")
    longest = max((band.end for _, listed in rows for band in listed), default=1.0)
    lines: list[np.ndarray] = []
    for text, listed in rows:
        lines += [pictures.text_band(text, WIDTH), strip(listed, longest), pictures.blank(MARGIN, WIDTH)]
    return np.pad(pictures.stacked(lines), ((MARGIN, 0), (MARGIN, MARGIN), (0, 0)), constant_values=255)
