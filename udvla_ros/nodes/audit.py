"""An independent witness: does what reaches the controller keep the robot file's limits?

It shares no code with the safety filter. It looks at the controller's output, sample by sample, and takes
finite differences, so that a step between two samples shows whatever velocities the message claimed.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

# Messages carry nanoseconds and the clocks of two processes: allow for that, not for more.
TOLERANCE = 0.02


class CommandAudit:
    """Counts violations of position, velocity and acceleration limits in a stream of samples.

    Args:
        lower, upper: [d] position bounds, rad.
        velocity: [d] largest speeds, rad/s.
        acceleration: [d] largest accelerations, rad/s^2, or None not to look at them.
    """

    def __init__(
        self, lower: np.ndarray, upper: np.ndarray, velocity: np.ndarray, acceleration: np.ndarray | None
    ) -> None:
        self._lower, self._upper = np.asarray(lower, float), np.asarray(upper, float)
        self._velocity = np.asarray(velocity, float)
        self._acceleration = None if acceleration is None else np.asarray(acceleration, float)
        self.counts: Counter[str] = Counter()
        self.worst: dict[str, float] = {}
        self.restart()

    @property
    def violations(self) -> int:
        """Samples at which some limit was broken."""
        return sum(self.counts.values())

    def restart(self) -> None:
        """Forget the last samples, because the arm was put elsewhere; the counts stay."""
        self._last: np.ndarray | None = None
        self._last_velocity: np.ndarray | None = None

    def look(self, position: np.ndarray, seconds: float) -> bool:
        """Take the commanded positions [d], ``seconds`` after the last; returns whether they are finite."""
        if not np.isfinite(position).all():
            self.counts["non_finite"] += 1
            return False
        slack = TOLERANCE * 1e-2
        self._note("position", np.maximum(self._lower - position, position - self._upper) - slack, offset=slack)
        if self._last is not None:
            velocity = (position - self._last) / seconds
            self._note("velocity", np.abs(velocity) / self._velocity - (1.0 + TOLERANCE), offset=1.0 + TOLERANCE)
            if self._acceleration is not None and self._last_velocity is not None:
                share = np.abs(velocity - self._last_velocity) / seconds / self._acceleration
                self._note("acceleration", share - (1.0 + TOLERANCE), offset=1.0 + TOLERANCE)
            self._last_velocity = velocity
        self._last = np.array(position, float)
        return True

    def _note(self, kind: str, excess: np.ndarray, offset: float) -> None:
        worst = float(excess.max(initial=-np.inf))
        self.worst[kind] = max(self.worst.get(kind, -np.inf), worst + offset)
        if worst > 0.0:
            self.counts[kind] += 1
