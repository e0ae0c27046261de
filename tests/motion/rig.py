"""The rig of the faults, with the judgement of the tests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import HealthCheck, settings

from udvla_ros.motion.robot import RobotDescription
from udvla_ros.proving.faults import rig
from udvla_ros.sim.audit import POSITION

AHEAD = 0.06  # m that a halt may leave the box
EASED = {"acceleration": 1.2, "jerk": 4.0}  # parts of the limits, for some milliseconds of a halt
THOROUGH = 80  # times the examples under --hypothesis-profile=thorough


def examples(count: int):
    """Return hypothesis settings for ``count`` examples, many times that in the profile ``thorough``."""
    scale = THOROUGH if settings.get_current_profile_name() == "thorough" else 1
    return settings(
        max_examples=count * scale, deadline=None, print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )  # fmt: skip


class Controller(rig.Controller):
    """Looks at every message as well."""

    def receive(self, points, now: float) -> None:
        assert points.times[0] >= 0.0 and (np.diff(points.times) > 0).all()
        assert not points.qd[-1].any() and not points.qdd[-1].any(), "a message must end at rest"
        super().receive(points, now)


class Rig(rig.Rig):
    """Judges what was written."""

    make = Controller

    def settle(self) -> None:
        """Let time pass until the plan in force has ended and every source was silent for long."""
        self.wait(max(self.arbiter.plan.end - self.now, 0.0) + 2.5)

    def judge(self) -> None:
        """Assert that all that was written kept every limit and had no step.

        Where the controller was halted it had to make its own way, and it sets out one period too far along: that is
        left out. That way is straight on, and nobody has looked where it leads: the box and the soft bounds are
        allowed for. And it sets out with an acceleration that is not known to the arbiter.
        """
        _, q, _ = self.controller.written()
        limits, audit, halted = self.robot.limits, self.controller.audit(), self.controller.halts > 0
        beyond = {kind for kind, count in audit.counts.items() if count}
        if halted and audit.worst["workspace"] < AHEAD:
            beyond.discard("workspace")
        if halted:
            beyond -= {kind for kind, most in EASED.items() if audit.worst[kind] < most}
        assert not beyond, f"{dict(audit.counts)}, worst {audit.worst}"
        assert halted or ((q >= limits.lower - POSITION).all() and (q <= limits.upper + POSITION).all()), "position"
        if self.robot.gripper:
            assert self.controller.hand_speed <= self.robot.gripper.max_velocity * 1.01, "gripper"

    def judge_rest(self) -> None:
        """Assert that the arm stands still."""
        assert self.controller.at_rest


def boxed(robot: RobotDescription, box, forbidden=()) -> RobotDescription:
    """Return the robot with another workspace."""
    workspace = type(robot.workspace)(np.array(box, float), np.array(forbidden, float).reshape(-1, 2, 3))
    return replace(robot, workspace=workspace)
