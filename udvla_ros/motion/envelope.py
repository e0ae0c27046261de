"""The checks a plan must pass before it leaves: joint limits over whole cells, the TCP every 10 ms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from udvla_ros.motion.kinematics import Kinematics
from udvla_ros.motion.limits import Limits
from udvla_ros.motion.plan import Plan, State
from udvla_ros.motion.workspace import Workspace

CYCLE = 0.01  # s between samples of a path


@dataclass(frozen=True, eq=False)
class Envelope:
    """What the arm may do from a given state on.

    Attributes:
        start: commanded state every plan must leave from.
        limits: joint limits; the soft bounds include where the arm is.
        allowed: [1 + k] how far the TCP may violate each box, m: 0, or as far as it already does.
    """

    start: State
    limits: Limits
    workspace: Workspace
    kinematics: Kinematics
    allowed: np.ndarray

    @classmethod
    def around(cls, start: State, limits: Limits, workspace: Workspace, kinematics: Kinematics) -> Envelope:
        """Return what holds from ``start`` on: found outside a bound, the arm may move inwards, not outwards."""
        depth = workspace.depth(kinematics.forward(start.q)[None, :3, 3])[0]
        return cls(start, limits.reaching(start.q), workspace, kinematics, np.maximum(depth, 0.0))

    def outside(self, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return for joints [n, d] the excess over the soft bounds (rad) and over the workspace (m), [n] each."""
        bound = np.maximum(self.limits.lower - q, q - self.limits.upper).max(axis=1)
        return bound, self._depth(self.kinematics.positions(q))

    def _depth(self, tcp: np.ndarray) -> np.ndarray:
        return (self.workspace.depth(tcp) - self.allowed).max(axis=1)

    def tcp(self, plan: Plan) -> np.ndarray:
        """Return TCP positions [2n - 1, 3] at the knots of the moving arm and the middles between them."""
        return self.kinematics.positions(plan.halves[1][: 2 * plan.arm_knots - 1])

    def tcp_effort(self, plan: Plan, tcp: np.ndarray) -> np.ndarray:
        """Return the TCP's speed in each cell [n] as a part of its limit, given :meth:`tcp`."""
        way = np.sqrt((np.diff(tcp, axis=0) ** 2).sum(axis=1))
        speed = np.zeros(2 * len(plan.times) - 2)
        speed[: len(way)] = way / np.diff(plan.halves[0][: len(tcp)])
        return speed.reshape(-1, 2).max(axis=1) / self.limits.tcp_speed

    def effort(self, plan: Plan) -> np.ndarray:
        """Return [3, n] the velocity, acceleration and jerk of each cell as parts of their limits."""
        _, *derivatives = plan.control_points
        bounds = (self.limits.velocity, self.limits.acceleration, self.limits.jerk)
        return np.stack([(np.abs(x).max(axis=0) / y).max(axis=1) for x, y in zip(derivatives, bounds, strict=True)])

    def violations(self, plan: Plan, effort: np.ndarray | None = None, tolerance: float = 1e-6) -> dict[str, float]:
        """Return what a plan violates, and by how much; empty for a plan that may leave.

        Velocity, acceleration, jerk and TCP speed by parts of their limits beyond 1, the others in rad and m.
        """
        effort = self.effort(plan) if effort is None else effort
        hull, tcp = plan.control_points[0], self.tcp(plan)
        departure = zip((plan.q[0], plan.qd[0], plan.qdd[0]), self.start, strict=True)
        excess = dict(zip(("velocity", "acceleration", "jerk"), effort.max(axis=1) - 1.0, strict=True))
        excess["position"] = max((self.limits.lower - hull).max(), (hull - self.limits.upper).max())
        excess["workspace"] = self._depth(tcp).max()
        excess["tcp_speed"] = self.tcp_effort(plan, tcp).max() - 1.0
        excess["start"] = max(np.abs(a - b).max() for a, b in departure)
        excess["end"] = max(np.abs(plan.qd[-1]).max(), np.abs(plan.qdd[-1]).max())
        return {name: float(value) for name, value in excess.items() if not value <= tolerance}  # NaN is caught
