"""``arbiter_node`` on its own terms: a dry run sends nothing, and an emergency stop is heard whoever publishes it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("mujoco")

from harness import Probe, environment, ros
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from robot_probe import RobotProbe
from std_msgs.msg import Bool, String
from trajectory_msgs.msg import JointTrajectory

from udvla_ros import graph
from udvla_ros.bringup import Bringup
from udvla_ros.nodes import runtime

OFFSET = np.array([0.25, -0.2, 0.2, -0.1, 0.1, 0.3, 0.4])
PLAIN = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT, durability=DurabilityPolicy.VOLATILE)


@pytest.fixture(scope="module")
def dry() -> Bringup:
    """The simulated arm and an arbiter that sends it nothing."""
    nodes = [
        replace(n, parameters={**n.parameters, "dry_run": True}) if n.name == "arbiter_node" else n
        for n in graph.resolve("sim", {"seed": "3", "policy": "false"})
    ]
    with Bringup(nodes, environment(), write=lambda line: None) as made:
        made.wait_ready(60.0)
        yield made


@pytest.fixture(scope="module")
def watcher(dry) -> Probe:
    with ros() as made:
        yield made


@pytest.fixture
def arm(watcher) -> RobotProbe:
    made = RobotProbe.of(watcher)
    made.fresh_episode()
    return made


def test_a_dry_run_plans_shows_and_sends_nothing(arm, watcher):
    reasons = watcher.hear(String, "arbiter/mode_reason", runtime.LATCHED_QOS)
    sent = watcher.hear(JointTrajectory, "joint_trajectory_controller/joint_trajectory", runtime.COMMAND_QOS)
    shown = watcher.hear(JointTrajectory, "arbiter_node/dry_run/joint_trajectory", runtime.COMMAND_QOS)
    watcher.until(lambda: watcher.node.count_publishers("arbiter_node/dry_run/joint_trajectory"), "the arbiter")
    before, start = arm.measured(), arm.commanded()
    arm.engage()
    arm.chunks.publish(arm.chunk(OFFSET, start))
    watcher.until(lambda: np.abs(arm.commanded() - start - OFFSET).max() < 5e-3, "the command to arrive")
    watcher.until(lambda: shown, "the plan on the dry-run topic")
    np.testing.assert_allclose(shown[-1].points[-1].positions, (start + OFFSET)[:6], atol=5e-3)
    np.testing.assert_allclose(arm.measured(), before, atol=2e-3)
    assert sent == []
    assert "dry run" in reasons[-1].data
    values = arm.fresh_values("arbiter_node")
    assert values["dry_run"] == "True" and "dry run" in values["message"] and int(values["plans_sent"]) == 0


@pytest.mark.parametrize("qos", [PLAIN, runtime.LATCHED_QOS, QoSProfile(depth=10)], ids=["plain", "latched", "default"])
def test_an_emergency_stop_is_heard_whoever_publishes_it(arm, watcher, qos):
    publisher = watcher.node.create_publisher(Bool, "emergency_stop", qos)
    try:

        def pressed() -> bool:
            publisher.publish(Bool(data=True))  # a best-effort one must repeat itself
            return arm.mode == "STOPPED"

        watcher.until(pressed, "the stop")
        answer = watcher.call("arbiter_node/reset")
        assert not answer.success and "emergency_stop is still pressed" in answer.message

        def released() -> bool:
            publisher.publish(Bool(data=False))
            return watcher.call("arbiter_node/reset").success

        watcher.until(released, "the reset", 10.0)
        watcher.until(lambda: arm.mode == "HOLD", "HOLD")
    finally:
        watcher.node.destroy_publisher(publisher)


def test_a_latched_stop_that_was_pressed_before_the_arbiter_came_counts(arm, watcher, dry):
    publisher = watcher.node.create_publisher(Bool, "emergency_stop", runtime.LATCHED_QOS)
    publisher.publish(Bool(data=True))
    watcher.until(lambda: arm.mode == "STOPPED", "the stop")
    dry.kill("arbiter_node")
    watcher.until(lambda: dry.codes()["arbiter_node"] is not None, "its end")
    arm.modes.clear()
    dry.start(["arbiter_node"])
    dry.wait_ready(30.0, ["arbiter_node"])
    watcher.until(lambda: arm.mode == "STOPPED", "the stop after the restart", 10.0)
    publisher.publish(Bool(data=False))
    watcher.until(lambda: watcher.call("arbiter_node/reset").success, "the reset", 10.0)
    watcher.node.destroy_publisher(publisher)
