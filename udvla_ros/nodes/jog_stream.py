"""The ROS side of jogging: from the arbiter's commanded state to ``teleop/joint_trajectory``.

Each message carries the stamp of the command it sets out from, so the arbiter finds that very state in its
memory and neither the age of the message nor the clocks of two machines shift it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from udvla_ros.motion.robot import RobotDescription
from udvla_ros.nodes import runtime
from udvla_ros.nodes.messages import message_from_arrays
from udvla_ros.teleop.ahead import DELAY, Ahead, Kinetics
from udvla_ros.teleop.jog import Jogger, Motion
from udvla_ros.teleop.wish import Wish

FRESH = 0.2  # s within which a command must have come for jogging to set out from it


@dataclass(frozen=True, eq=False)
class Command:
    """What the arbiter commands: ``q``, ``qd``, ``qdd`` [d], gripper joint (or NaN), stamp and arrival, s."""

    q: np.ndarray
    qd: np.ndarray
    qdd: np.ndarray
    gripper: float
    stamp: float
    heard: float


class JogStream:
    """Hears the arbiter, and sends motions of wishes that set out from what it commands.

    Args:
        node: whose publisher and subscriptions these are.
        robot: the arm; joints are mapped by name.
        on_command: called with each command, the moment to :meth:`send` for what must not wait.
    """

    def __init__(self, node: Node, robot: RobotDescription, on_command: Callable[[Command], None]) -> None:
        self.robot, self.jogger = robot, Jogger(robot)
        self.command: Command | None = None
        self.mode = self.reason = ""
        self.fault = ""
        self.sent = 0
        self._on_command = on_command
        self._ahead = Ahead()
        self._publisher = node.create_publisher(JointTrajectory, "teleop/joint_trajectory", runtime.COMMAND_QOS)
        self._subscriptions = [
            node.create_subscription(JointState, "arbiter/command", self._hear_command, runtime.STATE_QOS),
            node.create_subscription(String, "arbiter/mode", self._hear_mode, runtime.LATCHED_QOS),
            node.create_subscription(String, "arbiter/mode_reason", self._hear_reason, runtime.LATCHED_QOS),
        ]
        self._node = node

    def _hear_mode(self, message: String) -> None:
        self.mode = message.data

    def _hear_reason(self, message: String) -> None:
        self.reason = message.data

    def _hear_command(self, message: JointState) -> None:
        at = {name: k for k, name in enumerate(message.name)}
        missing = [name for name in self.robot.joints if name not in at]
        if missing or len(message.velocity) != len(message.name):
            what = ", ".join(missing) or "velocities"
            self.fault = f"arbiter/command lacks {what}; do both use one robot file?"
            return
        order = [at[name] for name in self.robot.joints]
        position, velocity = np.asarray(message.position, float), np.asarray(message.velocity, float)
        gripper = self.robot.gripper
        finger = position[at[gripper.joint]] if gripper is not None and gripper.joint in at else np.nan
        self.fault = ""
        stamp = runtime.to_seconds(message.header.stamp)
        qd, last = velocity[order], self.command
        elapsed = stamp - last.stamp if last is not None else 0.0
        qdd = (qd - last.qd) / elapsed if last is not None and 1e-4 < elapsed < FRESH else np.zeros_like(qd)
        self.command = Command(position[order], qd, qdd, float(finger), stamp, time.monotonic())
        self._on_command(self.command)

    def why_not(self) -> str:
        """Return why nothing can be sent, or nothing."""
        if self.fault:
            return self.fault
        if self.command is None:
            return "no arbiter/command heard; is arbiter_node running, and the arm's driver?"
        age = time.monotonic() - self.command.heard
        return "" if age < FRESH else f"arbiter/command stopped {age:.1f} s ago; is arbiter_node running?"

    def closed(self) -> float:
        """Return the commanded closed fraction of the gripper; 0 without one."""
        if self.robot.gripper is None or self.command is None or not np.isfinite(self.command.gripper):
            return 0.0
        return float(self.robot.gripper.fraction(self.command.gripper))

    def begin(self) -> None:
        """Begin a touch: what was sent before says nothing of where the arm goes."""
        self._ahead.forget()

    def send(self, wish: Wish) -> Motion | None:
        """Send the motion of a wish from the newest command; None where there is none to set out from."""
        if self.why_not() or self.command is None:
            return None
        command, gripper = self.command, self.robot.gripper
        start = self._ahead.start(command.stamp, Kinetics(command.q, command.qd, command.qdd))
        motion = self.jogger.motion(start.q, start.qd, wish, start.qdd)
        self._ahead.sent(command.stamp, start, motion)
        names, q, qd = list(self.robot.joints), motion.q, motion.qd
        if wish.gripper is not None and gripper is not None:
            names.append(gripper.joint)
            fingers = np.full((len(q), 1), gripper.position(np.array(wish.gripper)))
            q, qd = np.hstack([q, fingers]), np.hstack([qd, np.zeros_like(fingers)])
        self._publisher.publish(message_from_arrays(names, motion.times + DELAY, q, qd, stamp=command.stamp))
        self.sent += 1
        return motion

    def close(self) -> None:
        """Leave its topics: there is to be one operator at a time."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._node.destroy_publisher(self._publisher)
