"""What a source asks for: a plain value like ``trajectory_msgs/JointTrajectory``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Trajectory:
    """A requested motion, unchecked: sources may fill it with anything.

    Attributes:
        names: joint names, in the order of the columns of ``positions``; any order.
        times: [n] when each point is due, s after ``stamp``.
        positions: [n, d] rad (or the unit of the gripper joint).
        velocities: [n, d] rad/s at the points, or None to have them derived from the neighbours.
        stamp: time the motion starts from, s on the clock of the arbiter's ``now``. For a chunk this is the
            time of its observation, so part of it may have elapsed when it arrives.
    """

    names: Sequence[str]
    times: np.ndarray
    positions: np.ndarray
    velocities: np.ndarray | None = None
    stamp: float = 0.0
