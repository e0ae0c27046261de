"""What an operator wants at one moment, whatever device says it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Wish:
    """One of: a twist of the TCP, joint velocities, a goal; with none of them the arm comes to rest.

    Attributes:
        twist: [6] m/s and rad/s of the TCP.
        frame: axes of the twist: ``base`` or ``tcp``.
        joints: [d] rad/s.
        goal: [d] rad, where the joints should be now.
        goal_velocity: [d] rad/s of the goal.
        gripper: closed fraction 0 to 1 to command, None to leave the gripper to what it does.
    """

    twist: np.ndarray | None = None
    frame: str = "base"
    joints: np.ndarray | None = None
    goal: np.ndarray | None = None
    goal_velocity: np.ndarray | None = None
    gripper: float | None = None

    @property
    def moves(self) -> bool:
        """Whether it asks the arm for more than rest."""
        return any(part is not None for part in (self.twist, self.joints, self.goal))


REST = Wish()
