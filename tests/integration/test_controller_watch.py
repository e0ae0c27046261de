"""What ``arbiter_node`` hears of a driver: whether its controller is active, unscaled, and commanded by nobody else."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("rclpy")

from harness import Probe, environment
from lifecycle_msgs.msg import State, TransitionEvent
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Empty, Float64, String
from trajectory_msgs.msg import JointTrajectory

from udvla_ros import graph
from udvla_ros.bringup import Bringup
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.nodes import runtime
from udvla_ros.nodes.messages import message_from_arrays

ROBOT = RobotDescription.load("ur5e")
CONTROLLER = ROBOT.topics["command"].rpartition("/")[0]


class Driver:
    """The topics of a robot's driver, of an arm that stands still; what it says is set by the tests."""

    def __init__(self, probe: Probe) -> None:
        self.probe, self.percent, self.ahead = probe, 100.0, 0.0
        self.modes = probe.hear(String, "arbiter/mode", runtime.LATCHED_QOS)
        self.reasons = probe.hear(String, "arbiter/mode_reason", runtime.LATCHED_QOS)
        for topic in (ROBOT.topics["command"], ROBOT.gripper.command_topic):
            probe.hear(JointTrajectory, topic, runtime.COMMAND_QOS)
        probe.publisher(JointTrajectory, "policy/joint_trajectory")
        self.program = probe.publisher(Bool, ROBOT.driver["program_running"], runtime.LATCHED_QOS)
        self.events = probe.publisher(TransitionEvent, f"{CONTROLLER}/transition_event", runtime.STATE_QOS)
        self._scaling = probe.publisher(Float64, ROBOT.driver["speed_scaling"], runtime.STATE_QOS)
        self._states = probe.publisher(JointState, "joint_states", runtime.STATE_QOS)
        self._names = [*ROBOT.joints, ROBOT.gripper.joint]
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._speak, daemon=True)
        self._thread.start()

    def _speak(self) -> None:
        position = [*ROBOT.home.tolist(), ROBOT.gripper.open]
        while not self._end.wait(0.01):
            message = JointState(name=self._names, position=position, velocity=[0.0] * len(position))
            message.header.stamp = runtime.to_stamp(self.probe.now() + self.ahead)
            self._states.publish(message)
            self._scaling.publish(Float64(data=self.percent))

    def controller(self, state: str) -> None:
        """Say that the controller has gone into a state."""
        self.events.publish(TransitionEvent(goal_state=State(label=state)))

    def until(self, mode: str, reason: str) -> None:
        """Wait until the arbiter is in a mode for a reason."""
        self.probe.until(
            lambda: self.modes[-1].data == mode and self.reasons and reason in self.reasons[-1].data,
            f"{mode}: {reason}, not {[m.data for m in self.modes][-1:]} {[m.data for m in self.reasons][-1:]}", 10.0,
        )  # fmt: skip

    def engaged(self) -> bool:
        """Whether the policy could be given the arm."""
        return self.probe.call("arbiter_node/engage_policy").success

    def refused(self, reason: str) -> None:
        """Wait until engaging is refused for a reason."""
        self.probe.until(lambda: reason in self.probe.call("arbiter_node/engage_policy").message, reason, 10.0)

    def recovered(self) -> None:
        """Wait until the arm is the policy's again, on purpose."""
        call = self.probe.call
        self.probe.until(lambda: (call("arbiter_node/reset") and False) or self.engaged(), "the policy engaged", 10.0)

    def close(self) -> None:
        self._end.set()
        self._thread.join()


@pytest.fixture(scope="module")
def driver(probe) -> Iterator[Driver]:
    nodes = [n for n in graph.resolve("policy", {"robot": "ur5e"}) if n.name == "arbiter_node"]
    with Bringup(nodes, environment(), write=lambda line: None) as bringup:
        bringup.wait_ready(60.0)
        made = Driver(probe)
        probe.until(lambda: made.modes, "the arbiter")
        made.refused("whether it runs is not known")
        made.program.publish(Bool(data=True))
        probe.until(made.engaged, "the policy engaged", 15.0)
        yield made
        made.close()


def test_an_inactive_controller_stops_and_is_reset_on_purpose(driver):
    driver.recovered()
    driver.controller("inactive")
    driver.until("STOPPED", f"{CONTROLLER} is inactive")
    answer = driver.probe.call("arbiter_node/reset")
    assert not answer.success and "is inactive; activate it" in answer.message
    driver.controller("active")
    driver.recovered()


def test_a_program_that_stopped_stops_the_arm(driver):
    driver.recovered()
    driver.program.publish(Bool(data=False))
    driver.until("STOPPED", "the robot's program does not run")
    driver.program.publish(Bool(data=True))
    driver.recovered()


def test_a_robot_below_full_speed_is_not_engaged(driver):
    driver.recovered()
    driver.percent = 50.0
    driver.until("HOLD", "the robot plays at 50 %")
    assert not driver.engaged()
    driver.percent = 100.0
    driver.probe.until(driver.engaged, "the policy engaged without a reset", 10.0)


def test_somebody_elses_message_stops_the_arm_and_his_publisher_bars_it(driver):
    driver.recovered()
    node = driver.probe.node
    other = node.create_publisher(JointTrajectory, ROBOT.topics["command"], runtime.COMMAND_QOS)
    try:
        driver.until("HOLD", "may write to")
        driver.refused("may write to")
        other.publish(message_from_arrays(ROBOT.joints, np.array([1.0]), ROBOT.home[None]))
        driver.until("STOPPED", "somebody else commanded the controller")
    finally:
        node.destroy_publisher(other)
    driver.recovered()


def test_a_drivers_clock_that_is_ahead_stops_the_arm(driver):
    driver.recovered()
    driver.ahead = 0.2
    driver.until("STOPPED", "ahead of this clock")
    driver.ahead = 0.0
    driver.recovered()


def test_a_policy_that_was_alive_and_is_silent_is_not_engaged(driver):
    node = driver.probe.node
    alive = node.create_publisher(Empty, "policy/alive", runtime.STATE_QOS)
    driver.probe.call("arbiter_node/hold")
    driver.probe.until(lambda: node.count_subscribers("policy/alive"), "the arbiter")
    driver.probe.until(lambda: alive.publish(Empty()) or alive.get_subscription_count(), "the arbiter")
    driver.refused("policy_node has not been heard for")
    driver.probe.until(lambda: alive.publish(Empty()) or driver.engaged(), "a policy that is back", 10.0)
    node.destroy_publisher(alive)
