"""Carries out TCP deltas in the simulated world, on the commanded pose."""

from __future__ import annotations

import numpy as np

from udvla_ros.sim.kinematics import exp_so3
from udvla_ros.sim.world import TabletopWorld

CONTROL_DT = 0.1  # s, 10 Hz


def compose(pose: np.ndarray, action: np.ndarray) -> np.ndarray:
    """Return the TCP pose [4, 4] one base-frame delta after ``pose``: p + dp, Exp(dr) R."""
    result = np.array(pose, float)
    result[:3, 3] += action[:3]
    if np.any(action[3:6]):
        result[:3, :3] = exp_so3(action[3:6]) @ result[:3, :3]
    return result


class DeltaControl:
    """Applies 7-D actions: dx dy dz (m), rotation vector (rad), gripper (+1 close, -1 open).

    Args:
        world: the world to act in.
        dt: seconds one action lasts.
    """

    def __init__(self, world: TabletopWorld, dt: float = CONTROL_DT) -> None:
        self._world, self._dt = world, dt

    def apply(self, action: np.ndarray) -> None:
        """Carry out one action.

        Raises:
            UnreachablePose: the arm cannot get there; nothing has moved.
        """
        world = self._world
        target = compose(world.tcp_command(), action)
        q = world.kinematics.inverse(target, world.q_command)
        world.follow(q, 1.0 if action[6] > 0 else 0.0, self._dt)
