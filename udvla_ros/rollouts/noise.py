"""Noise on what is executed, never on what is recorded as intended.

The idea of DART (Laskey et al., 2017): disturb the expert while it acts, keep its intentions as labels, and
the data hold the recoveries a policy needs once it drifts. Near the cube the noise shrinks, as there the
disturbed hand would knock the cube away.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LOWEST = 0.0195  # m of the TCP: the closed fingertips stay above the table
BOX = ((0.28, -0.27, LOWEST), (0.70, 0.27, 0.30))  # m; outside it the arm is never disturbed to


@dataclass(frozen=True)
class Noise:
    """How strongly an expert's actions are disturbed.

    Attributes:
        sigma: standard deviation per axis and step, m.
        burst: range of the length of an occasional large offset, m.
        burst_rate: probability of one per step.
        near: distance to the goal (m) within which noise shrinks, down to ``floor`` of itself.
        flip_rate: probability per step, away from the goal, that the gripper is commanded the wrong way.
        turn: standard deviation per axis and step, rad: a policy's hand does not keep pointing down.
    """

    sigma: float = 0.008
    burst: tuple[float, float] = (0.02, 0.04)
    burst_rate: float = 1 / 12
    near: float = 0.05
    floor: float = 0.3
    flip_rate: float = 0.02
    turn: float = 0.03

    @staticmethod
    def scaled(factor: float) -> Noise:
        """Return the default noise times ``factor``; 0 switches it off."""
        base = Noise()
        low, high = base.burst
        rates = (base.burst_rate, base.flip_rate) if factor > 0 else (0.0, 0.0)
        return Noise(
            base.sigma * factor, (low * factor, high * factor), rates[0], flip_rate=rates[1], turn=base.turn * factor
        )

    def disturb(
        self,
        action: np.ndarray,
        position: np.ndarray,
        goal: np.ndarray,
        holding: bool,
        rng: np.random.Generator,
        lowest: float = LOWEST,
    ) -> np.ndarray:
        """Return the action [7] to execute.

        Args:
            action: what the expert intends.
            position: commanded TCP position [3], m; ``goal``: where the expert heads [3], m.
            holding: a cube is in the gripper; it is carried about, but not dropped.
            lowest: height (m) the TCP is never disturbed to below.
            rng: source of randomness; as many draws are taken whatever the state.
        """
        shake, turn = rng.normal(size=3) * self.sigma, rng.normal(size=3) * self.turn
        direction = rng.normal(size=3)
        length = rng.uniform(*self.burst)
        bursts, flips = rng.random() < self.burst_rate, rng.random() < self.flip_rate
        away = float(np.linalg.norm(position - goal))
        scale = 0.5 if holding else float(np.clip(away / self.near, self.floor, 1.0))
        offset = shake * scale
        if bursts:
            offset += direction / np.linalg.norm(direction) * length * scale
        executed = np.array(action, np.float32)
        if np.any(offset):
            # A stiff arm pushed into the cube or the table is no demonstration.
            lowest = min(float(position[2] + action[2]), lowest)
            low, high = np.array(BOX)
            low[2] = lowest
            executed[:3] = np.clip(position + action[:3] + offset, low, high) - position
        executed[3:6] += turn * scale
        if flips and scale > 0.9 and not holding:
            executed[6] = -executed[6]
        return executed
