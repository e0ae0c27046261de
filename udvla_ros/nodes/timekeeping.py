"""Tells a clock that was set from a process that stood still: to the arm the one is as bad as the other.

The clock of the stamps may be set while the arm moves (NTP, a person); a second, steady clock sees it. Simulated time
goes at a pace of its own: there only what no pace explains is a step.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

STEP = 0.03  # s between the two clocks that is a step; a message rarely waits so long between two reads
PACE, JUMP = 5.0, 1.0  # times real time that simulated time may go, and s beyond that it may be ahead
DRIFT = 2e-3  # part of the time passed by which a clock that is being slewed may differ


class Reading(NamedTuple):
    """A time, and what happened since the last: seconds by which the clock was set, seconds without a reading."""

    now: float
    stepped: float
    silent: float


class Timekeeper:
    """Reads the clock of the stamps, in seconds.

    Args:
        clock: the clock of the stamps.
        steady: a clock that nobody sets.
        simulated: whether the clock of the stamps goes at a pace of its own.
    """

    def __init__(
        self, clock: Callable[[], float], steady: Callable[[], float] = time.monotonic, simulated: bool = False
    ) -> None:
        self._clock, self._steady, self._simulated = clock, steady, simulated
        self._last: tuple[float, float] | None = None

    def read(self) -> Reading:
        """Return the time now."""
        # The process may be interrupted between the two reads: take the tightest of a few.
        before, now, after = self._both()
        for _ in range(3):
            if after - before < STEP / 10:
                break
            before, now, after = self._both()
        steady, last = (before + after) / 2, self._last
        self._last = (now, steady)
        if last is None:
            return Reading(now, 0.0, 0.0)
        passed = steady - last[1]
        step = (now - last[0]) - passed
        if self._simulated:
            possible = last[0] <= 0.0 or -STEP <= step + passed <= PACE * passed + JUMP
            return Reading(now, 0.0 if possible else step, passed)
        return Reading(now, step if abs(step) > STEP + DRIFT * passed else 0.0, passed)

    def _both(self) -> tuple[float, float, float]:
        before = self._steady()
        now = self._clock()
        return before, now, self._steady()
