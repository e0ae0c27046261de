"""Where the command will be by the time a motion that is made now takes hold.

A message takes a few milliseconds to the arbiter, and what the arbiter makes of it goes on for a moment along the
plan in force (its parameter ``lead``). A motion that set out from the command as it was heard would ask the arm
back to there, again with each message. So motions set out a little ahead: along the operator's own last motion
while the command goes along with it, else along the command as it moves.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np

from udvla_ros.teleop.jog import Motion

DELAY = 0.025  # s from the stamp of a command to where a motion made of it takes hold
LEASH = 0.02  # rad between the command and the operator's last motion up to which it counts as followed
KEPT = 8  # motions: at 50 Hz more than the delay


class Kinetics(NamedTuple):
    """Position, velocity and acceleration of the joints, [d] each."""

    q: np.ndarray
    qd: np.ndarray
    qdd: np.ndarray


class Ahead:
    """The operator's motions so far, and what they say of the moment a new one takes hold."""

    def __init__(self) -> None:
        self._sent: deque[tuple[float, Kinetics, Motion]] = deque(maxlen=KEPT)

    def forget(self) -> None:
        """Begin a new touch."""
        self._sent.clear()

    def sent(self, stamp: float, start: Kinetics, motion: Motion) -> None:
        """Remember a motion that set out from ``start``, ``DELAY`` after ``stamp`` (s)."""
        self._sent.append((stamp + DELAY, start, motion))

    def start(self, stamp: float, command: Kinetics) -> Kinetics:
        """Return where a motion made of the command at ``stamp`` (s) is to set out, ``DELAY`` later."""
        if self._sent:
            now = self._at(stamp)
            if now is None or np.abs(now.q - command.q).max() < LEASH:
                later = self._at(stamp + DELAY)
                if later is not None:
                    return later
            else:
                self.forget()  # slowed or halted by the arbiter: nothing is to wind up
        q = command.q + command.qd * DELAY + command.qdd * (DELAY**2 / 2)
        return Kinetics(q, command.qd + command.qdd * DELAY, command.qdd)

    def _at(self, time: float) -> Kinetics | None:
        """Return the operator's motion at ``time``; None before the first one set out."""
        for begin, start, motion in reversed(self._sent):
            if begin <= time + 1e-9:
                return _along(start, motion, time - begin)
        return None


def _along(start: Kinetics, motion: Motion, t: float) -> Kinetics:
    """Return a motion ``t`` s after it set out, as the cubic between its points."""
    times = np.concatenate([[0.0], motion.times])
    if t >= times[-1]:
        still = np.zeros_like(start.q)
        return Kinetics(motion.q[-1], still, still)
    q, qd = np.vstack([start.q, motion.q]), np.vstack([start.qd, motion.qd])
    k = int(np.searchsorted(times, t, "right")) - 1
    h = times[k + 1] - times[k]
    u, slope = (t - times[k]) / h, (q[k + 1] - q[k]) / h
    c2, c3 = 3 * slope - 2 * qd[k] - qd[k + 1], qd[k] + qd[k + 1] - 2 * slope
    return Kinetics(
        q[k] + h * (qd[k] * u + c2 * u**2 + c3 * u**3),
        qd[k] + 2 * c2 * u + 3 * c3 * u**2,
        (2 * c2 + 6 * c3 * u) / h,
    )
