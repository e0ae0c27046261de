"""The checks a plan must pass before it leaves: joint limits over whole cells, the TCP every 10 ms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from udvla_ros.motion.collision import Capsules
from udvla_ros.motion.kinematics import Kinematics
from udvla_ros.motion.limits import Limits, efforts
from udvla_ros.motion.plan import Plan, State
from udvla_ros.motion.quintic import POSITION
from udvla_ros.motion.workspace import Workspace

CYCLE = 0.01  # s between samples of a path
NEAR = 0.8  # part of the TCP speed limit from which on it is worth a look


@dataclass(frozen=True, eq=False)
class Envelope:
    """What the arm may do from a given state on.

    Attributes:
        start: commanded state every plan must leave from.
        limits: joint limits; the soft bounds include where the arm is.
        allowed: [1 + k] how far the TCP may violate each box, m: 0, or as far as it already does.
        capsules: what the arm may collide with, None where that is not looked at.
        near: how far the margin about the capsules may be violated, m: 0, or as far as it already is.
    """

    start: State
    limits: Limits
    workspace: Workspace
    kinematics: Kinematics
    allowed: np.ndarray
    capsules: Capsules | None = None
    near: float = 0.0

    @classmethod
    def around(
        cls, start: State, limits: Limits, workspace: Workspace, kinematics: Kinematics,
        capsules: Capsules | None = None,
    ) -> Envelope:  # fmt: skip
        """Return what holds from ``start`` on: found outside a bound, the arm may move inwards, not outwards."""
        depth = workspace.depth(kinematics.forward(start.q)[None, :3, 3])[0]
        near = max(float(capsules.depth(kinematics, start.q[None])[0]), 0.0) if capsules else 0.0
        limits = limits.reaching(start.q)
        return cls(start, limits, workspace, kinematics, np.maximum(depth, 0.0), capsules, near)

    def outside(self, q: np.ndarray) -> dict[str, np.ndarray]:
        """Return for joints [n, d] the excess [n] over the soft bounds (rad), the workspace and the clearances (m)."""
        excess = {
            "position": np.maximum(self.limits.lower - q, q - self.limits.upper).max(axis=1),
            "workspace": (self.workspace.depth(self.kinematics.positions(q)) - self.allowed).max(axis=1),
        }
        if self.capsules is not None:
            excess["collision"] = self.capsules.depth(self.kinematics, q) - self.near
        return excess

    def tcp(self, plan: Plan) -> np.ndarray:
        """Return TCP positions [2n - 1, 3] at the knots of the moving arm and the middles between them."""
        return self.kinematics.positions(plan.halves[1][: 2 * plan.arm_knots - 1])

    def tcp_effort(self, plan: Plan, tcp: np.ndarray) -> np.ndarray:
        """Return the TCP's speed in each cell [n] as a part of its limit, given :meth:`tcp`."""
        step = tcp[1:] - tcp[:-1]
        times = plan.halves[0][: len(tcp)]
        speed = np.zeros(2 * len(plan.times) - 2)
        speed[: len(step)] = np.sqrt(np.einsum("ij,ij->i", step, step)) / (times[1:] - times[:-1])
        return np.maximum(speed[::2], speed[1::2]) / self.limits.tcp_speed

    def hurries(self, plan: Plan) -> bool:
        """Return whether the TCP is near its speed limit where the joints are fastest: a hint, not a check."""
        fastest = int(np.einsum("ij,ij->i", plan.qd, plan.qd).argmax())
        velocity = self.kinematics.jacobian(plan.q[fastest])[:3] @ plan.qd[fastest]
        return float(np.sqrt(velocity @ velocity)) > NEAR * self.limits.tcp_speed

    def effort(self, plan: Plan) -> np.ndarray:
        """Return [3, n] the velocity, acceleration and jerk of each cell as parts of their limits."""
        return efforts(plan.hulls, self.limits)

    def violations(self, plan: Plan, effort: np.ndarray | None = None, tolerance: float = 1e-6) -> dict[str, float]:
        """Return what a plan violates, and by how much; empty for a plan that may leave.

        Velocity, acceleration, jerk and TCP speed by parts of their limits beyond 1, the others in rad and m.
        """
        effort = self.effort(plan) if effort is None else effort
        hull, tcp = plan.hulls[POSITION], self.tcp(plan)
        velocity, acceleration, jerk = effort.max(axis=1).tolist()
        departure = np.concatenate([plan.q[0], plan.qd[0], plan.qdd[0]]) - np.concatenate(self.start)
        excess = {
            "velocity": velocity - 1.0,
            "acceleration": acceleration - 1.0,
            "jerk": jerk - 1.0,
            "position": max((self.limits.lower - hull).max(), (hull - self.limits.upper).max()),
            "workspace": (self.workspace.depth(tcp).max(axis=0) - self.allowed).max(),
            "tcp_speed": self.tcp_effort(plan, tcp).max() - 1.0,
            "start": np.abs(departure).max(),
            "end": np.abs(np.concatenate([plan.qd[-1], plan.qdd[-1]])).max(),
        }
        if self.capsules is not None:
            moving = plan.halves[1][: 2 * plan.arm_knots - 1]
            excess["collision"] = self.capsules.depth(self.kinematics, moving).max() - self.near
        return {name: float(value) for name, value in excess.items() if not value <= tolerance}  # NaN is caught
