"""Where the arbiter's plans go: topics, actions or a dense stream, for the arm and for the gripper.

A backend is given each plan once, when it comes into force (:meth:`send`), and the commanded state at every tick
(:meth:`follow`); most use only one of the two. :meth:`trouble` says in one line why it cannot move anything.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from rclpy.node import Node
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from udvla_ros.errors import ConfigError
from udvla_ros.motion.plan import Plan, Points
from udvla_ros.motion.robot import Gripper, RobotDescription
from udvla_ros.nodes import runtime
from udvla_ros.nodes.actions import GripperAction, GripperCommand, ParallelGripperCommand, TrajectoryAction, action_type
from udvla_ros.nodes.messages import message_from_arrays, serialized
from udvla_ros.nodes.polled import Polled

Failed = Callable[[str], None]
OWN = 64  # messages of our own that are remembered: they come back in a moment


def arm_message(robot: RobotDescription, points: Points) -> JointTrajectory:
    """Return the arm's trajectory."""
    return message_from_arrays(robot.joints, points.times, points.q, points.qd, points.qdd, points.stamp)


def hand_message(gripper: Gripper, points: Points) -> JointTrajectory:
    """Return the gripper's trajectory."""
    return message_from_arrays([gripper.joint], points.times, points.gripper[:, None], stamp=points.stamp)


class Backend(Protocol):
    """See the module."""

    def send(self, points: Points) -> None:
        """Take the plan that just came into force."""

    def follow(self, plan: Plan, now: float) -> None:
        """Take what is commanded at ``now``."""

    def trouble(self) -> str:
        """Return why nothing would move, or nothing."""

    def foreign(self) -> str:
        """Return that somebody else commanded the controller since the last call, as far as can be seen, or nothing."""


class TrajectoryTopic:
    """``joint_trajectory_controller`` by its topic: a new plan replaces the one before at once.

    It also listens to what others write there. Somebody's message is not heard by us alone.
    """

    def __init__(self, node: Node, topic: str, message: Callable[[Points], JointTrajectory]) -> None:
        self._publisher = node.create_publisher(JointTrajectory, topic, runtime.COMMAND_QOS)
        self._echo = Polled(node, JointTrajectory, topic, runtime.COMMAND_QOS)
        self._message = message
        self._made: tuple[Points, bytes] | None = None
        self._own: deque[bytes] = deque(maxlen=OWN)

    def send(self, points: Points) -> None:
        """Publish the plan."""
        if self._made is None or self._made[0] is not points:
            self._made = (points, serialized(self._message(points)))
        self._own.append(self._made[1])
        self._publisher.publish(self._made[1])

    def follow(self, plan: Plan, now: float) -> None:
        """Do nothing: the controller plays the plan by itself."""

    def trouble(self) -> str:
        """Return that nobody listens."""
        return _unheard(self._publisher, ourselves=1)

    def foreign(self) -> str:
        """Return that a message came which is none of ours, or nothing."""
        if all(data in self._own for data, _ in self._echo.take()):
            return ""
        return f"somebody else commanded the controller on {self._publisher.topic_name}"


class ForwardCommands:
    """``forward_command_controller``: positions at every tick; should the arbiter die, the last one stays."""

    def __init__(self, node: Node, topic: str, positions: Callable[[Plan, float], list[float]]) -> None:
        self._publisher = node.create_publisher(Float64MultiArray, topic, runtime.COMMAND_QOS)
        self._positions = positions

    def send(self, points: Points) -> None:
        """Do nothing: the next tick brings the first position of the plan."""

    def follow(self, plan: Plan, now: float) -> None:
        """Publish the positions commanded now."""
        self._publisher.publish(Float64MultiArray(data=self._positions(plan, now)))

    def trouble(self) -> str:
        """Return that nobody listens."""
        return _unheard(self._publisher)

    def foreign(self) -> str:
        """Return nothing: a dense stream is not looked at."""
        return ""


def _unheard(publisher: Any, ourselves: int = 0) -> str:
    if publisher.get_subscription_count() > ourselves:
        return ""
    return f"nobody listens on {publisher.topic_name}; is the controller loaded and active?"


def arm_backend(node: Node, robot: RobotDescription, failed: Failed) -> Backend:
    """Return the arm's backend by ``controller.type`` and ``controller.interface`` (topic or action).

    Args:
        failed: takes one line when the controller gives up a plan; only actions say so.

    Raises:
        ConfigError: the robot file names what is not there.
    """
    file, topic = robot.path.name, robot.topics.get("command")
    interface = robot.controller.get("interface", "topic")
    if not topic:
        raise ConfigError(f"{file}: topics.command is missing; name the controller's topic")
    if interface not in ("topic", "action"):
        raise ConfigError(f"{file}: controller.interface '{interface}' is neither topic nor action")
    if robot.controller["type"] == "forward_command_controller":
        if interface == "action":
            raise ConfigError(f"{file}: forward_command_controller has no action; drop controller.interface")
        return ForwardCommands(node, topic, lambda plan, now: plan.state(now).q.tolist())
    if interface == "topic":
        return TrajectoryTopic(node, topic, lambda points: arm_message(robot, points))
    name = robot.controller.get("action") or f"{topic.rpartition('/')[0]}/follow_joint_trajectory"
    kind = action_type("FollowJointTrajectory", f"{file}: controller.interface action")
    return TrajectoryAction(node, kind, name, lambda points: kind.Goal(trajectory=arm_message(robot, points)), failed)


def gripper_backend(node: Node, robot: RobotDescription, failed: Failed) -> Backend | None:
    """Return the gripper's backend by ``gripper.type``; None for a bare arm.

    Raises:
        ConfigError: the robot file names what is not there.
    """
    gripper = robot.gripper
    if gripper is None:
        return None
    makers: dict[str, Callable[[Node, Gripper, str], Backend]] = {
        "joint_trajectory": lambda n, g, _: TrajectoryTopic(n, g.command_topic, partial(hand_message, g)),
        "forward_command": lambda n, g, _: ForwardCommands(n, g.command_topic, lambda p, now: [p.gripper_at(now)]),
        "gripper_command": lambda n, g, where: GripperAction(n, g, GripperCommand(where), failed),
        "parallel_gripper_command": lambda n, g, where: GripperAction(n, g, ParallelGripperCommand(where), failed),
    }
    maker = makers.get(gripper.type)
    if maker is None:
        raise ConfigError(
            f"{robot.path.name}: gripper.type '{gripper.type}' is not supported; use one of {', '.join(makers)}"
        )
    return maker(node, gripper, f"{robot.path.name}: gripper.type {gripper.type}")
