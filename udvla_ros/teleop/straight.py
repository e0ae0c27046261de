"""A TCP that is jogged along a line stays on the line, and does not turn."""

from __future__ import annotations

import numpy as np
import pinocchio as pin

from udvla_ros.motion.kinematics import Kinematics
from udvla_ros.teleop.wish import Wish

PULL = 4.0  # 1/s back to the line
MOST = np.array([0.02] * 3 + [0.1] * 3)  # m/s and rad/s of that
ASTRAY = 0.02, 0.1  # m and rad from the line beyond which somebody else has moved the arm: a new line begins


class StraightLine:
    """The pose at which a jog in one direction began; what drifted off its line is brought back.

    Each motion starts at the commanded state, which is a hair beside the last motion's line; without this the
    hairs would add up.
    """

    def __init__(self, kinematics: Kinematics) -> None:
        self._kinematics = kinematics
        self._key: tuple | None = None
        self._pose = np.eye(4)

    def begin(self, q: np.ndarray, wish: Wish) -> None:
        """Take note of a wish at joints ``q`` [d]: another direction, or an arm elsewhere, begins a new line."""
        if wish.twist is None:
            self._key = None
            return
        twist = np.asarray(wish.twist, float)
        size = np.linalg.norm(twist)
        key = (wish.frame, *np.round(twist / size if size > 0 else twist, 3))
        if key != self._key or self._astray(q, wish):
            self._key, self._pose = key, self._kinematics.forward(q)

    def corrected(self, q: np.ndarray, wish: Wish, part: float) -> np.ndarray:
        """Return the wished twist [6] in base axes times ``part``, with the way back to the line at joints ``q``."""
        twist = self._in_base(wish)
        back = np.clip(PULL * self._error(q, twist), -MOST, MOST)
        return twist * part + back * min(1.0, 4 * part)

    def _in_base(self, wish: Wish) -> np.ndarray:
        twist = np.asarray(wish.twist, float)
        if wish.frame == "base":
            return twist
        turn = self._pose[:3, :3]
        return np.concatenate([turn @ twist[:3], turn @ twist[3:]])

    def _error(self, q: np.ndarray, twist: np.ndarray) -> np.ndarray:
        """Return the way [6] from joints ``q`` to the nearest pose on the line; nothing along what is wished."""
        here = self._kinematics.forward(q)
        shift = self._pose[:3, 3] - here[:3, 3]
        speed = np.linalg.norm(twist[:3])
        if speed > 0:
            along = twist[:3] / speed
            shift = shift - along * (along @ shift)
        turn = np.zeros(3) if twist[3:].any() else pin.log3(self._pose[:3, :3] @ here[:3, :3].T)
        return np.concatenate([shift, turn])

    def _astray(self, q: np.ndarray, wish: Wish) -> bool:
        error = self._error(q, self._in_base(wish))
        return bool(np.linalg.norm(error[:3]) > ASTRAY[0] or np.linalg.norm(error[3:]) > ASTRAY[1])
