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
        depth = workspace.depth(kinematics.positions(start.q[None]))[0]
        return cls(start, limits.reaching(start.q), workspace, kinematics, np.maximum(depth, 0.0))

    def outside(self, q: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return for joints [n, d]: excess over the soft bounds (rad), over the workspace (m), TCP [n, 3]."""
        bound = np.maximum(self.limits.lower - q, q - self.limits.upper).max(axis=1)
        tcp = self.kinematics.positions(q)
        return bound, (self.workspace.depth(tcp) - self.allowed).max(axis=1), tcp

    def effort(self, plan: Plan) -> np.ndarray:
        """Return [3, n] the velocity, acceleration and jerk of each cell as parts of their limits."""
        _, *derivatives = plan.control_points
        bounds = (self.limits.velocity, self.limits.acceleration, self.limits.jerk)
        return np.stack([(np.abs(x).max(axis=0) / y).max(axis=1) for x, y in zip(derivatives, bounds, strict=True)])

    def violations(self, plan: Plan, effort: np.ndarray | None = None, tolerance: float = 1e-6) -> dict[str, float]:
        """Return what a plan violates, and its size (a factor, rad or m); empty for a plan that may leave."""
        found = {}
        effort = self.effort(plan) if effort is None else effort
        for name, worst in zip(("velocity", "acceleration", "jerk"), effort.max(axis=1), strict=True):
            if worst > 1.0 + tolerance:
                found[name] = float(worst)
        hull = plan.control_points[0]
        excess = max((self.limits.lower - hull).max(), (hull - self.limits.upper).max())
        if excess > tolerance:
            found["position"] = float(excess)
        times, q = plan.halves
        resting = 2 * plan.arm_knots - 1
        times, q = times[:resting], q[:resting]
        _, depth, tcp = self.outside(q)
        if depth.max() > tolerance:
            found["workspace"] = float(depth.max())
        speed = (np.sqrt((np.diff(tcp, axis=0) ** 2).sum(axis=1)) / np.diff(times)).max(initial=0.0)
        if speed > self.limits.tcp_speed * (1.0 + tolerance):
            found["tcp_speed"] = float(speed / self.limits.tcp_speed)
        begin = zip((plan.q[0], plan.qd[0], plan.qdd[0]), self.start, strict=True)
        step = max(float(np.abs(a - b).max()) for a, b in begin)
        if not step <= tolerance:
            found["start"] = step
        if plan.qd[-1].any() or plan.qdd[-1].any():
            found["end"] = 1.0
        if not all(np.isfinite(x).all() for x in plan.control_points):
            found["finite"] = 1.0
        return found
