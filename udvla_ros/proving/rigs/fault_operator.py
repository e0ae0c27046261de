"""The operator and observer of the fault suite: engages, presses, drives, and notes what the arbiter commands.

It knows the graph by its topics and services only. A thread of its own spins it, so that nothing is missed while the
runner waits for processes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from udvla_ros.errors import UdvlaError
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.nodes import runtime, services
from udvla_ros.nodes.messages import message_from_arrays
from udvla_ros.proving.faults.graph import TRUE
from udvla_ros.proving.faults.trace import Trace

AHEAD = np.array([0.05, 0.1, 0.15, 0.2])  # s, points of a teleop message
T = TypeVar("T")


class FaultError(UdvlaError):
    """The graph does not do what a fault needs of it."""

    exit_code = 1


class FaultOperator:
    """See the module. All its public methods are for the thread that made it.

    Args:
        robot: of the running graph.
        context: rclpy context.
    """

    def __init__(self, robot: RobotDescription, context: rclpy.Context) -> None:
        self.robot = robot
        self.node = rclpy.create_node("fault_operator", context=context)
        self._changed = threading.Condition()
        self._trace: Trace | None = None
        self._newest: JointState | None = None
        self._heard = -np.inf
        self._mode, self._reason = "", ""
        self._values: dict[str, tuple[float, dict[str, str]]] = {}
        self.cpu: list[float] = []  # percent of a core, of the arbiter
        self.own_clock = True  # a relayed clock costs the arbiter's process more than the arbiter does
        self.services = services.Clients(self.node, self.until, FaultError)
        node, topic = self.node, robot.topics.get("joint_states", "joint_states")
        node.create_subscription(JointState, "arbiter/command", self._on_command, runtime.STATE_QOS)
        node.create_subscription(JointState, f"{TRUE}/{topic}", self._on_joints, runtime.STATE_QOS)
        node.create_subscription(String, "arbiter/mode_reason", self._on_reason, runtime.LATCHED_QOS)
        node.create_subscription(String, "arbiter/mode", self._on_mode, runtime.LATCHED_QOS)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 50)
        self._stop = node.create_publisher(Bool, "emergency_stop", 10)
        self._offers = {
            name: node.create_publisher(JointTrajectory, f"{name}/joint_trajectory", runtime.COMMAND_QOS)
            for name in ("teleop",)
        }
        self._teleop_from: tuple[float, np.ndarray] | None = None
        self._stick = node.create_timer(0.02, self._drive)
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(node)
        self._thread = threading.Thread(target=self._spin, name="fault operator", daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        with suppress(ExternalShutdownException):
            self._executor.spin()

    # -- in ----------------------------------------------------------------------------------------------
    def _on_command(self, message: JointState) -> None:
        received = time.monotonic()
        size = len(self.robot.joints)
        with self._changed:
            self._newest, self._heard = message, received
            if self._trace is not None:
                self._trace.stamps.append(runtime.to_seconds(message.header.stamp))
                self._trace.received.append(received)
                self._trace.q.append(np.array(message.position[:size]))
                self._trace.qd.append(np.array(message.velocity[:size]))
            self._changed.notify_all()

    def _on_joints(self, message: JointState) -> None:
        at = dict(zip(message.name, message.velocity, strict=False))
        speed = max((abs(at.get(joint, 0.0)) for joint in self.robot.joints), default=0.0)
        with self._changed:
            if self._trace is not None:
                self._trace.measured.append((time.monotonic(), speed))

    def _on_reason(self, message: String) -> None:
        self._reason = message.data

    def _on_mode(self, message: String) -> None:
        with self._changed:
            self._mode = message.data
            if self._trace is not None:
                self._trace.modes.append((time.monotonic(), message.data, self._reason))
            self._changed.notify_all()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        with self._changed:
            for status in message.status:
                values = {value.key: value.value for value in status.values} | {"message": status.message}
                self._values[status.name] = (time.monotonic(), values)
                if status.name == "arbiter_node" and self._trace is not None and self.own_clock:
                    self.cpu.append(float(values["cpu_percent"]))
            self._changed.notify_all()

    # -- waiting and calling -----------------------------------------------------------------------------
    def until(self, condition: Callable[[], T], seconds: float) -> T | None:
        """Wait until the condition holds and return its value, or None when the time is over."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while True:
                value = condition()
                left = deadline - time.monotonic()
                if value or left <= 0:
                    return value or None
                self._changed.wait(min(left, 0.05))

    def need(self, condition: Callable[[], T], what: str, seconds: float = 20.0) -> T:
        """Wait as :meth:`until`.

        Raises:
            FaultError: the time is over.
        """
        value = self.until(condition, seconds)
        if value is None:
            raise FaultError(f"waited {seconds:g} s for {what}; see the logs of the nodes")
        return value

    def wait(self, seconds: float) -> None:
        """Look on for a while."""
        self.until(lambda: False, seconds)

    # -- what is known -----------------------------------------------------------------------------------
    @property
    def mode(self) -> str:
        """The arbiter's mode."""
        return self._mode

    @property
    def reason(self) -> str:
        """Why it is in that mode."""
        return self._reason

    def speed(self) -> float:
        """Return the greatest commanded joint speed, rad/s."""
        newest = self._newest
        return 0.0 if newest is None else float(np.abs(np.array(newest.velocity)).max(initial=0.0))

    def commanded(self) -> np.ndarray:
        """Return the newest command [d], the gripper last."""
        self.need(lambda: self._newest is not None, "a command")
        assert self._newest is not None
        return np.array(self._newest.position)

    def command_after(self, t: float) -> bool:
        """Return whether a command has come since ``t`` on the steady clock."""
        return self._heard > t

    def values(self, node: str, fresh: bool = True) -> dict[str, str]:
        """Return the diagnostic values of a node; ``fresh``: published after this call."""
        asked = time.monotonic() if fresh else -np.inf
        self.need(lambda: self._values.get(node, (-np.inf, {}))[0] > asked, f"diagnostics of {node}")
        return dict(self._values[node][1])

    # -- recording ---------------------------------------------------------------------------------------
    def record(self) -> Trace:
        """Begin a new trace and return it; it grows until the next one or :meth:`end`."""
        with self._changed:
            self._trace = Trace()
            self._trace.modes.append((time.monotonic(), self._mode, self._reason))
            return self._trace

    def end(self) -> None:
        """Let the trace be."""
        with self._changed:
            self._trace = None

    def _granted(self) -> None:
        if self._trace is not None:
            self._trace.grants.append(time.monotonic())

    # -- acting ------------------------------------------------------------------------------------------
    def engage(self, source: str) -> Trigger.Response:
        """Give the arm to a source on purpose."""
        self._granted()
        return self.services.trigger(f"arbiter_node/engage_{source}")

    def press(self, pressed: bool) -> None:
        """Press or release the emergency-stop topic."""
        self._stop.publish(Bool(data=pressed))

    def take_stick(self) -> None:
        """Begin to drive by teleop, swaying about where the arm is commanded."""
        self._granted()
        with self._changed:
            self._teleop_from = (time.monotonic(), self.commanded())

    def let_go(self) -> None:
        """Stop driving."""
        with self._changed:
            self._teleop_from = None

    def _drive(self) -> None:
        held = self._teleop_from
        if held is None:
            return
        t = time.monotonic() - held[0] + AHEAD
        sway = 0.08 * np.outer(1.0 - np.cos(np.pi * t), np.eye(len(held[1]))[0] - 0.5 * np.eye(len(held[1]))[1])
        self._offers["teleop"].publish(
            message_from_arrays(self.robot.command_names, AHEAD, held[1] + sway, stamp=runtime.now(self.node))
        )

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self._thread.join(5.0)
        self.node.destroy_node()


class Intruder:
    """A second writer on the policy's topic: another node, with chunks that go elsewhere."""

    def __init__(self, operator: FaultOperator, context: rclpy.Context) -> None:
        self.node = rclpy.create_node("intruder", context=context)
        self._operator = operator
        self._publisher = self.node.create_publisher(JointTrajectory, "policy/joint_trajectory", runtime.COMMAND_QOS)
        operator.need(self._publisher.get_subscription_count, "the arbiter to hear the second writer")

    def send(self) -> None:
        """Publish one chunk of 0.8 s that turns the first joints from where the arm is commanded."""
        times = 0.1 * np.arange(1, 9)
        start = self._operator.commanded()
        turn = np.outer(times / times[-1], 0.25 * np.eye(len(start))[0])
        self._publisher.publish(
            message_from_arrays(
                self._operator.robot.command_names, times, start + turn, stamp=runtime.now(self.node)
            )
        )

    def close(self) -> None:
        """Leave the graph."""
        self.node.destroy_node()


@contextmanager
def joined(robot: RobotDescription) -> Iterator[tuple[FaultOperator, rclpy.Context]]:
    """Join the graph of this process's ROS environment for the length of a block."""
    context = rclpy.Context()
    rclpy.init(context=context)
    operator = FaultOperator(robot, context)
    try:
        yield operator, context
    finally:
        operator.close()
        rclpy.try_shutdown(context=context)
