"""Controllers spoken to by their actions: ``FollowJointTrajectory`` and the two gripper commands.

The types are those of ``control_msgs``, which comes with ROS 2 and not with its wheels: without it there is one line
that says so. A new goal takes the place of the one before, as a new message does on the topic; but an action also
tells when the controller refuses a goal or gives it up, and then the arm is stopped.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from action_msgs.msg import GoalStatus
from rclpy.action import ActionClient
from rclpy.node import Node

from udvla_ros.errors import ConfigError
from udvla_ros.motion.plan import Plan
from udvla_ros.motion.robot import Gripper

PERIOD = 0.1  # s at least between two goals of a gripper, whose driver may take one at a time
NOTICED = 0.01  # of the gripper's stroke: targets closer than this are the same


def action_type(name: str, what: str) -> Any:
    """Return an action type of ``control_msgs``.

    Args:
        what: who needs it, for the one line.

    Raises:
        ConfigError: control_msgs is not installed.
    """
    try:
        return getattr(importlib.import_module("control_msgs.action"), name)
    except (ImportError, AttributeError):
        raise ConfigError(
            f"{what} needs control_msgs/action/{name}: source a ROS 2 Jazzy with ros-jazzy-control-msgs, "
            "or use the topic interface"
        ) from None


class _Goals:
    """Sends goals one after the other and watches the newest.

    Args:
        must_succeed: whether a goal given up is a failure. A gripper that closes on something is aborted as stalled.
    """

    def __init__(
        self, node: Node, kind: Any, name: str, failed: Callable[[str], None], must_succeed: bool = True
    ) -> None:
        self._client = ActionClient(node, kind, name)
        self._name, self._failed, self._must_succeed = name, failed, must_succeed
        self._newest = 0

    def trouble(self) -> str:
        """Return that there is no server."""
        if self._client.server_is_ready():
            return ""
        return f"no action server {self._name}; is the controller loaded and active?"

    def send(self, goal: Any) -> None:
        self._newest += 1
        number = self._newest
        if self.trouble():
            self._failed(self.trouble())
            return
        self._client.send_goal_async(goal).add_done_callback(lambda future: self._answered(number, future))

    def _answered(self, number: int, future: Any) -> None:
        if number != self._newest:
            return  # a newer goal has taken its place, whatever became of it
        handle = future.result()
        if not handle.accepted:
            self._failed(f"{self._name} rejected a plan; its log says why")
            return
        if not self._must_succeed:
            return
        handle.get_result_async().add_done_callback(lambda result: self._ended(number, result))

    def _ended(self, number: int, future: Any) -> None:
        outcome = future.result()
        if number != self._newest or outcome.status == GoalStatus.STATUS_SUCCEEDED:
            return
        word = "cancelled" if outcome.status == GoalStatus.STATUS_CANCELED else "aborted"
        said = getattr(outcome.result, "error_string", "")
        self._failed(f"{self._name} {word} the plan{': ' if said else ''}{said}")


class TrajectoryAction:
    """``joint_trajectory_controller`` by its action.

    Args:
        kind: the action type, ``control_msgs/FollowJointTrajectory``.
        goal: makes its goal of a plan's points.
        failed: takes one line when the newest goal is refused or given up.
    """

    def __init__(
        self, node: Node, kind: Any, name: str, goal: Callable[[Any], Any], failed: Callable[[str], None]
    ) -> None:
        self._goals, self._goal = _Goals(node, kind, name, failed), goal
        self._last: Any = None

    def send(self, points: Any) -> None:
        """Send the plan as a goal in place of the one before; a goal is not lost, so never twice."""
        if points is not self._last:
            self._last = points
            self._goals.send(self._goal(points))

    def follow(self, plan: Plan, now: float) -> None:
        """Do nothing: the controller plays the plan by itself."""

    def trouble(self) -> str:
        """Return that there is no server."""
        return self._goals.trouble()

    def foreign(self) -> str:
        """Return nothing: a goal that is taken over is told as given up."""
        return ""


class GripperGoal(Protocol):
    """An action type and how its goal is filled."""

    kind: Any

    def goal(self, gripper: Gripper, position: float) -> Any:
        """Return the goal that brings the gripper joint to ``position``."""


class GripperCommand:
    """``control_msgs/GripperCommand``: position and effort as two numbers."""

    def __init__(self, what: str) -> None:
        self.kind = action_type("GripperCommand", what)

    def goal(self, gripper: Gripper, position: float) -> Any:
        """Return the goal; an effort of 0 leaves it to the driver."""
        goal = self.kind.Goal()
        goal.command.position = position
        goal.command.max_effort = gripper.max_effort
        return goal


class ParallelGripperCommand:
    """``control_msgs/ParallelGripperCommand``: a joint state by name."""

    def __init__(self, what: str) -> None:
        self.kind = action_type("ParallelGripperCommand", what)

    def goal(self, gripper: Gripper, position: float) -> Any:
        """Return the goal; an effort of 0 leaves it to the driver."""
        goal = self.kind.Goal()
        goal.command.name, goal.command.position = [gripper.joint], [position]
        if gripper.max_effort:
            goal.command.effort = [gripper.max_effort]
        return goal


class GripperAction:
    """A gripper by action: a goal whenever the plan's gripper sets out for another position."""

    def __init__(self, node: Node, gripper: Gripper, kind: GripperGoal, failed: Callable[[str], None]) -> None:
        self._goals = _Goals(node, kind.kind, gripper.command_topic, failed, must_succeed=False)
        self._gripper, self._kind = gripper, kind
        self._sent: tuple[float, float] | None = None

    def send(self, points: Any) -> None:
        """Do nothing: :meth:`follow` sees the plan."""

    def follow(self, plan: Plan, now: float) -> None:
        """Send a goal if the target is another one than the last; the first tick only notes where it stands.

        A gripper by action goes to a position at its own speed; what is sent is where it is to arrive, in time.
        """
        target = plan.next_turn(now)
        if self._sent is None:
            self._sent = (-np.inf, target)
        since, last = self._sent
        far = abs(target - last) > NOTICED * abs(self._gripper.closed - self._gripper.open)
        if far and not 0.0 <= now - since < PERIOD:
            self._sent = (now, target)
            self._goals.send(self._kind.goal(self._gripper, target))

    def trouble(self) -> str:
        """Return that there is no server."""
        return self._goals.trouble()

    def foreign(self) -> str:
        """Return nothing: a goal that is taken over is told as given up."""
        return ""
