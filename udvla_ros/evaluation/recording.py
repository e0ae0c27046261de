"""What an onlooker of the running graph noted: pictures, chunks and outcomes, and the report made of them.

Times are seconds on the clock of the messages' stamps.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from udvla_ros.evaluation import pictures
from udvla_ros.evaluation.cases import Case
from udvla_ros.evaluation.intervals import rate_with_interval, stage_percentiles
from udvla_ros.evaluation.mode_bands import Band, ModeChange, bands, seconds_in

SAME_TIME = 0.1  # s two pictures may differ and still show the same moment; cameras give one every 0.08 s
SAME_STAMP = 0.005  # s by which stamps may be rounded on their way


@dataclass
class Prediction:
    """A future picture: what the cameras are foreseen to see at ``due``, heard at ``heard``."""

    due: float
    heard: float
    images: dict[str, np.ndarray] = field(default_factory=dict)


class Film:
    """Pictures of several cameras by their stamps."""

    def __init__(self, cameras: Sequence[str]) -> None:
        self.cameras = list(cameras)
        self._frames: dict[str, list[tuple[float, np.ndarray]]] = {name: [] for name in cameras}

    def add(self, camera: str, stamp: float, image: np.ndarray) -> None:
        """Take one picture; an older one than the last is dropped."""
        frames = self._frames[camera]
        if not frames or stamp > frames[-1][0]:
            frames.append((stamp, image))

    def stamps(self) -> list[float]:
        """Return the stamps of the first camera."""
        return [stamp for stamp, _ in self._frames[self.cameras[0]]]

    def at(self, time: float, tolerance: float = SAME_TIME) -> dict[str, np.ndarray]:
        """Return the picture of each camera nearest to ``time``; cameras without one that near are left out."""
        found = {}
        for name, frames in self._frames.items():
            index = bisect_left(frames, time, key=lambda frame: frame[0])
            near = [frame for frame in frames[max(0, index - 1) : index + 1] if abs(frame[0] - time) <= tolerance]
            if near:
                found[name] = min(near, key=lambda frame: abs(frame[0] - time))[1]
        return found


@dataclass
class EpisodeRecord:
    """One episode of the demo.

    Attributes:
        case: what was asked.
        film: what the cameras saw, from before the first chunk to a moment after the end.
        predictions, chunks: in the order in which they came; ``chunks`` are policy_node's ``chunk_info``
            (``stamp``, ``horizon`` and ``dt`` in s, ``timings_ms``, ...).
        success, reason, steps, seconds: the simulation's verdict; steps at 10 Hz and seconds since the first command.
        began, ended: stamps.
        modes: of the arbiter, the first from before the beginning.
        bag: folder of its recording, where it was recorded.
    """

    case: Case
    film: Film
    predictions: list[Prediction] = field(default_factory=list)
    chunks: list[dict[str, Any]] = field(default_factory=list)
    success: bool = False
    reason: str = ""
    steps: int = 0
    seconds: float = 0.0
    began: float = 0.0
    ended: float = 0.0
    modes: list[ModeChange] = field(default_factory=list)
    bag: str = ""

    def bands(self) -> list[Band]:
        """Return who had the arm from the beginning to the end."""
        return bands(self.modes, self.began, self.ended)

    def mode_at(self, time: float) -> str:
        """Return the mode at ``time``; empty before the first was heard."""
        return next((change.mode for change in reversed(self.modes) if change.time <= time), "")

    def predict(self, camera: str, due: float, heard: float, image: np.ndarray) -> None:
        """Take a predicted picture; those of one chunk belong together by the time they are pictures of."""
        if not self.predictions or abs(self.predictions[-1].due - due) > SAME_STAMP:
            self.predictions.append(Prediction(due, heard))
        self.predictions[-1].images[camera] = image

    def line(self) -> str:
        """Return the episode in one line for people."""
        verdict = "success" if self.success else "failure"
        by_hand = seconds_in(self.bands(), "TELEOP")
        helped = f", {by_hand:.1f} s by hand" if by_hand else ""
        return (
            f"{self.case.instruction:28} seed {self.case.seed}  {verdict} after {self.seconds:.1f} s, "
            f"{len(self.chunks)} chunks{helped}: {self.reason}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the episode as the report lists it."""
        return {
            "seed": self.case.seed,
            "instruction": self.case.instruction,
            "task": f"{self.case.task.kind}/{self.case.task.colour}",
            "success": self.success,
            "reason": self.reason,
            "steps": self.steps,
            "seconds": round(self.seconds, 2),
            "chunks": len(self.chunks),
            "modes": [band.as_dict() for band in self.bands()],
            **({"bag": self.bag} if self.bag else {}),
        }


def demo_report(records: Sequence[EpisodeRecord], violations: int | None, command: str) -> dict[str, Any]:
    """Return the demo's report.

    Args:
        records: the episodes in their order.
        violations: of the limits, by commands that reached the controller; None where nobody counted.
        command: as one would type it.
    """
    chunks = [chunk for record in records for chunk in record.chunks]
    first: Mapping[str, Any] = chunks[0] if chunks else {}
    successes = sum(record.success for record in records)
    by_kind: dict[str, dict[str, Any]] = {}
    for kind in dict.fromkeys(record.case.task.kind for record in records):
        good = [record.success for record in records if record.case.task.kind == kind]
        by_kind[kind] = {
            "episodes": len(good),
            "successes": sum(good),
            **rate_with_interval(sum(good), len(good)),
        }
    interval = rate_with_interval(successes, len(records))
    return {
        "episodes": [record.as_dict() for record in records],
        "success_rate": interval["rate"],
        "ci95": interval["ci95"],
        "tasks": by_kind,
        "latency_ms": stage_percentiles(chunk["timings_ms"] for chunk in chunks),
        "cold_start_ms": first.get("cold_start_ms"),
        "chunks": len(chunks),
        "control_hz": round(1.0 / first["dt"], 3) if first else None,
        "limit_violations": violations,
        "bundle": {"name": first.get("bundle"), "hash": first.get("bundle_hash")},
        "command": command,
    }


def comparable(record: EpisodeRecord) -> list[tuple[float, Prediction]]:
    """Return (time of the observation, prediction) of chunks of which all three pictures are there."""
    found = []
    for chunk in record.chunks:
        due = chunk["stamp"] + chunk["horizon"]
        prediction = next((p for p in record.predictions if abs(p.due - due) <= SAME_STAMP), None)
        if prediction and record.film.at(chunk["stamp"]) and record.film.at(due):
            found.append((float(chunk["stamp"]), prediction))
    return found


def sheet_rows(records: Sequence[EpisodeRecord], most: int = 24) -> list[pictures.Row]:
    """Return rows for the contact sheet: two moments of each episode, one where that would be too many."""
    each = 2 if 2 * len(records) <= most else 1
    shares = (0.3, 0.9) if each == 2 else (0.6,)
    rows = []
    for record in records:
        moments = comparable(record)
        chosen = sorted({min(int(share * len(moments)), len(moments) - 1) for share in shares} if moments else ())
        for index in chosen:
            stamp, prediction = moments[index]
            verdict = "succeeded" if record.success else "failed"
            text = (
                f'"{record.case.instruction}" after {stamp - record.began:.1f} s; predicted and came: '
                f"{prediction.due - stamp:.1f} s later ({verdict})"
            )
            rows.append(pictures.Row(text, record.film.at(stamp), prediction.images, record.film.at(prediction.due)))
    return rows[:most]


def film_frames(records: Sequence[EpisodeRecord], scale: int = pictures.SCALE) -> Iterator[np.ndarray]:
    """Yield the demo's film, picture by picture: what is seen, the newest prediction, and the instruction."""
    sizes: dict[str, tuple[int, int]] = {}
    for record in records:
        for stamp in record.film.stamps():
            seen = record.film.at(stamp)
            if not sizes and len(seen) == len(record.film.cameras):
                sizes = pictures.sizes_of(seen)
            if not sizes:
                continue
            known = [p for p in record.predictions if p.heard <= stamp]
            text = record.case.instruction
            if record.ended and stamp >= record.ended:
                text += "   succeeded" if record.success else f"   failed: {record.reason}"
            else:
                text += f"   {max(0.0, stamp - record.began):.1f} s"
                text += "   BY HAND" if record.mode_at(stamp) == "TELEOP" else ""
            yield pictures.video_frame(seen, known[-1].images if known else {}, text, record.film.cameras, sizes, scale)
