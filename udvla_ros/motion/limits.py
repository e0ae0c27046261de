"""The envelope of the joints, from the URDF and the robot file."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from udvla_ros.errors import ConfigError
from udvla_ros.motion.quintic import ACCELERATION, JERK, VELOCITY

FIRST = VELOCITY.start  # of the rows that have limits of size
ROWS = [slice(rows.start - FIRST, rows.stop - FIRST) for rows in (VELOCITY, ACCELERATION, JERK)]


@dataclass(frozen=True, eq=False)
class Limits:
    """Limits per joint [d] in rad and s, and of the TCP in m/s.

    Attributes:
        hard_lower, hard_upper: position bounds of the arm; a target beyond them is refused.
        lower, upper: soft bounds, the hard ones less a margin; motion halts here.
        velocity, acceleration, jerk: greatest magnitudes.
        tcp_speed: greatest speed of the TCP.
    """

    hard_lower: np.ndarray
    hard_upper: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray
    jerk: np.ndarray
    tcp_speed: float

    def at_speed(self, fraction: float) -> Limits:
        """Return limits with the velocities (joints and TCP) scaled to ``fraction`` of the full ones.

        Raises:
            ConfigError: the fraction is not in (0, 1].
        """
        if not 0.0 < fraction <= 1.0:
            raise ConfigError(f"speed must be above 0 and at most 1, not {fraction}")
        return replace(self, velocity=self.velocity * fraction, tcp_speed=self.tcp_speed * fraction)

    def reaching(self, q: np.ndarray) -> Limits:
        """Return limits whose soft bounds include ``q``: found outside, the arm may move back, not further."""
        if (self.lower <= q).all() and (q <= self.upper).all():
            return self
        return replace(self, lower=np.minimum(self.lower, q), upper=np.maximum(self.upper, q))

    def validate(self, joints: tuple[str, ...]) -> None:
        """Refuse limits that contradict each other.

        Raises:
            ConfigError: one line naming the key, the joint and what to change.
        """
        for key in ("velocity", "acceleration", "jerk"):
            for joint, value in zip(joints, getattr(self, key), strict=True):
                if not value > 0 or not np.isfinite(value):
                    raise ConfigError(f"limits.{key} of {joint} is {value:g}: give a finite number above 0")
        for i, joint in enumerate(joints):
            if not self.hard_lower[i] < self.hard_upper[i]:
                raise ConfigError(
                    f"limits.position of {joint}: lower {self.hard_lower[i]:g} is not below upper "
                    f"{self.hard_upper[i]:g}; mend one of them"
                )
            if not self.lower[i] < self.upper[i]:
                raise ConfigError(
                    f"limits.position_margin leaves {joint} no room between {self.hard_lower[i]:g} and "
                    f"{self.hard_upper[i]:g} rad; make the margin smaller"
                )
            # The shortest stop from full speed must fit between the bounds, or every fast motion is halted.
            stop = self.velocity[i] * max(
                self.velocity[i] / self.acceleration[i], (self.velocity[i] / self.jerk[i]) ** 0.5
            )
            if stop > self.upper[i] - self.lower[i]:
                raise ConfigError(
                    f"limits: {joint} at {self.velocity[i]:g} rad/s needs {stop:.2f} rad to stop but has "
                    f"{self.upper[i] - self.lower[i]:.2f}; lower its velocity or raise acceleration and jerk"
                )
        if not self.tcp_speed > 0:
            raise ConfigError(f"limits.tcp_speed is {self.tcp_speed:g}: give a number above 0 (m/s)")


def efforts(hulls: np.ndarray, limits: Limits) -> np.ndarray:
    """Return [3, n] the velocity, acceleration and jerk of cells as parts of their limits.

    Args:
        hulls: control points [18, n, d] of :func:`udvla_ros.motion.quintic.hulls`.
    """
    sizes = np.abs(hulls[FIRST:])
    parts = np.empty((3, *hulls.shape[1:]))
    for part, rows, limit in zip(parts, ROWS, (limits.velocity, limits.acceleration, limits.jerk), strict=True):
        np.divide(sizes[rows].max(axis=0), limit, out=part)
    return np.ascontiguousarray(parts.transpose(2, 0, 1)).max(axis=0)  # numpy is slow at many short rows
