"""The monitor itself: scores in, and whether to go on, with a reason that a person can read."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from udvla_ros.monitor.calibration import Calibration

WORDS = {
    "likelihood": "what {} sees was not foreseen",
    "picture": "what {} sees is not what was foreseen",
    "disagreement": "successive plans contradict each other{}",
    "reversals": "the arm turns back and forth{}",
    "stillness": "the arm gets nowhere{}",
    "unknown_words": "the sentence has words it never saw{}",
    "delay": "chunks come late{}",
    "age": "pictures are old{}",
}


@dataclass(frozen=True)
class Judgement:
    """What the monitor makes of one chunk.

    Attributes:
        level: the sum of the surprises; ``threshold``: what it must exceed for ``patience`` chunks; infinite: none.
        alarm: whether it has, just now.
        reason: in words, where ``level`` is above the threshold.
        surprises: of each score, weighed.
    """

    level: float
    threshold: float
    alarm: bool
    reason: str
    surprises: Mapping[str, float]


class Watch:
    """Follows one attempt after the other.

    Args:
        calibration: of the bundle.
        threshold: in place of the calibrated one; 0: that.
        patience: chunks in a row above it; 0: as calibrated.
    """

    def __init__(self, calibration: Calibration, patience: int = 0, threshold: float = 0.0) -> None:
        self.calibration, self.patience = calibration, patience or calibration.patience
        self.threshold = threshold or calibration.threshold(self.patience)
        self.reset()

    def anew(self) -> Watch:
        """Return one that has seen nothing yet."""
        return Watch(self.calibration, self.patience, self.threshold)

    def reset(self) -> None:
        """Begin a new attempt."""
        self._levels: deque[float] = deque(maxlen=self.patience)

    def update(self, scores: Mapping[str, float]) -> Judgement:
        """Judge one chunk."""
        surprises = self.calibration.surprises(scores)
        level = sum(surprises.values())
        self._levels.append(level)
        alarm = len(self._levels) == self.patience and min(self._levels) > self.threshold
        reason = ""
        if level > self.threshold and surprises:
            most = describe(max(surprises, key=surprises.__getitem__))
            reason = f"{most} (surprise {level:.1f}, threshold {self.threshold:.1f})"
        return Judgement(level, self.threshold, alarm, reason, surprises)

    def off(self) -> bool:
        """Return whether no threshold can be given."""
        return math.isinf(self.threshold)


def describe(score: str) -> str:
    """Return a score's name in words."""
    kind, _, where = score.partition("/")
    camera = f"the {where} camera" if kind in ("likelihood", "picture") else f" ({where})" if where else ""
    return WORDS[kind].format(camera)
