"""An independent witness: does what the controller writes keep the robot file's limits?

It shares no code with the safety filter but the arm's geometry. It looks at the controller's output, sample by sample,
and takes finite differences, so that a step between two samples shows whatever velocities the message claimed.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from udvla_ros.motion.robot import RobotDescription

# Messages carry nanoseconds and clocks doubles (0.2 microseconds near today's date): allow for that, not for more.
# The third difference of 2 ms cycles multiplies such an error by 1e8.
TOLERANCE = {"velocity": 0.02, "acceleration": 0.02, "jerk": 0.1, "tcp_speed": 0.02}
POSITION, WORKSPACE = 2e-4, 2e-3  # rad and m
ORDER = 3  # samples before, of which the next difference of each kind is made


class CommandAudit:
    """Counts samples beyond position, velocity, acceleration, jerk, workspace and TCP speed.

    Attributes:
        counts: samples beyond, by kind.
        worst: by kind, the greatest part of the limit; for ``position`` (rad) and ``workspace`` (m) how far outside,
            for ``skipped`` the furthest of :meth:`look`, rad.
    """

    def __init__(self, robot: RobotDescription) -> None:
        self._robot, limits = robot, robot.limits
        self._limits = {"velocity": limits.velocity, "acceleration": limits.acceleration, "jerk": limits.jerk}
        self.counts: Counter[str] = Counter()
        self.worst: dict[str, float] = {}
        self.restart()

    @property
    def violations(self) -> int:
        """How often some limit was broken."""
        return sum(self.counts.values())

    def restart(self) -> None:
        """Forget the last samples, because the arm was put elsewhere; the counts stay."""
        self._before: np.ndarray | None = None

    def look(self, q: np.ndarray, seconds: float, skipped: np.ndarray | None = None) -> bool:
        """Take commanded positions [d] or [n, d], ``seconds`` apart; returns whether they are finite.

        Args:
            skipped: [m, d] what the controller passed over before the first of them (see
                :attr:`udvla_ros.sim.jtc.JointTrajectoryController.skipped`): how far is reported, and the motion is
                judged as if it had been written.
        """
        q = np.atleast_2d(np.asarray(q, float))
        if not np.isfinite(q).all():
            self.counts["non_finite"] += int((~np.isfinite(q).all(axis=1)).sum())
            self.restart()
            return False
        limits, workspace, number = self._robot.limits, self._robot.workspace, len(q)
        self._note("position", np.maximum(limits.hard_lower - q, q - limits.hard_upper).max(axis=1), POSITION)
        before = q[:0] if self._before is None else self._before
        if skipped is not None:
            before = np.concatenate([before, skipped])
            furthest = float(np.abs(skipped[-1] - before[0 if self._before is None else len(self._before) - 1]).max())
            self.worst["skipped"] = max(self.worst.get("skipped", 0.0), furthest)
        rows = np.concatenate([before[-ORDER:], q])
        tcp = self._robot.kinematics.positions(rows[-number - 1 :])
        self._note("workspace", workspace.depth(tcp[-number:]).max(axis=1), WORKSPACE)
        speed = np.linalg.norm(np.diff(tcp, axis=0), axis=1) / seconds
        self._note("tcp_speed", speed / limits.tcp_speed, 1.0 + TOLERANCE["tcp_speed"])
        change = rows
        for kind, limit in self._limits.items():
            change = np.diff(change, axis=0) / seconds
            self._note(kind, (np.abs(change[-number:]) / limit).max(axis=1), 1.0 + TOLERANCE[kind])
        self._before = rows[-ORDER:]
        return True

    def _note(self, kind: str, values: np.ndarray, most: float) -> None:
        if values.size:
            self.worst[kind] = max(self.worst.get(kind, -np.inf), float(values.max()))
            beyond = int((values > most).sum())
            if beyond:
                self.counts[kind] += beyond
