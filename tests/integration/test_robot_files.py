"""The arbiter with each shipped robot file, dry: it comes up, takes a chunk, shows the plan and sends nothing."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import numpy as np
import pytest
from harness import environment
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from udvla_ros import graph
from udvla_ros.bringup import Bringup, BringupError
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.nodes import runtime
from udvla_ros.nodes.messages import message_from_arrays

HAS_ACTIONS = importlib.util.find_spec("control_msgs") is not None
BY_TOPIC = "panda by topic"  # the arm alone: its gripper's type needs control_msgs
BY_ACTION = [pytest.param("panda", marks=pytest.mark.skipif(not HAS_ACTIONS, reason="control_msgs is not installed"))]


def arbiter(robot: str) -> Bringup:
    rows = graph.resolve("policy", {"robot": robot, "dry_run": "true", "policy": "false"})
    return Bringup(rows, environment(), write=lambda line: None)


@pytest.fixture(params=["ur5e", "so101", BY_TOPIC, *BY_ACTION])
def robot(request, probe, tmp_path) -> Iterator[RobotDescription]:
    """A robot whose arbiter runs and whose joints stand at home."""
    name = request.param
    if name == BY_TOPIC:
        shipped = RobotDescription.load("panda").path
        (tmp_path / "panda.urdf").write_text(shipped.with_suffix(".urdf").read_text())
        text = shipped.read_text().replace("type: gripper_command", "type: joint_trajectory")
        (tmp_path / "panda.yaml").write_text(text)
        name = str(tmp_path / "panda.yaml")
    made = RobotDescription.load(name)
    states = probe.node.create_publisher(JointState, made.topics["joint_states"], 10)
    rest = [*made.home.tolist(), made.gripper.open]

    def publish() -> None:
        message = JointState(name=list(made.command_names), position=rest, velocity=[0.0] * len(rest))
        message.header.stamp = runtime.to_stamp(probe.now())
        states.publish(message)

    timer = probe.node.create_timer(0.02, publish)
    with arbiter(name) as running:
        running.wait_ready(60.0)
        yield made
    probe.node.destroy_timer(timer)
    probe.node.destroy_publisher(states)


def test_a_chunk_is_planned_and_shown_and_not_sent(robot, probe):
    modes = probe.hear(String, "arbiter/mode", runtime.LATCHED_QOS)
    commands = probe.hear(JointState, "arbiter/command")
    shown = probe.hear(JointTrajectory, "arbiter_node/dry_run/joint_trajectory", runtime.COMMAND_QOS)
    sent = probe.hear(JointTrajectory, robot.topics["command"], runtime.COMMAND_QOS)
    for messages in (modes, commands, shown, sent):
        messages.clear()
    chunks = probe.publisher(JointTrajectory, "policy/joint_trajectory")
    probe.until(lambda: commands, "commands: the arm is measured")
    probe.until(lambda: probe.call("arbiter_node/engage_policy").success, "POLICY")
    here = np.array(commands[-1].position)
    there = here + 0.02 * np.array([1.0] * len(robot.joints) + [0.0])
    times = 0.1 * np.arange(1, 11)
    between = here + (there - here) * (times / times[-1])[:, None]
    shown.clear()
    chunks.publish(message_from_arrays(robot.command_names, times, between, stamp=probe.now()))
    plan = probe.until(lambda: shown and shown[-1], "the plan that is shown")
    assert tuple(plan.joint_names) == robot.joints
    q = np.array([point.positions for point in plan.points])
    assert np.abs(q[-1] - here[:-1]).max() > 1e-4, "it shows no motion"
    assert (q > robot.limits.lower - 1e-6).all() and (q < robot.limits.upper + 1e-6).all()
    seconds = np.array([p.time_from_start.sec + p.time_from_start.nanosec * 1e-9 for p in plan.points])
    speed = np.abs(np.diff(q, axis=0)) / np.diff(seconds)[:, None]
    assert (speed <= 0.1 * robot.limits.velocity * 1.01).all(), "a real arm starts at a tenth of its speed"
    assert probe.call("arbiter_node/hold").success
    assert not sent, "a dry run reached the controller"
    probe.node.destroy_publisher(chunks)


@pytest.mark.skipif(HAS_ACTIONS, reason="control_msgs is installed")
def test_a_gripper_by_action_says_what_it_needs():
    with arbiter("panda") as running:
        with pytest.raises(BringupError, match=r"panda.yaml: .*control_msgs"):
            running.wait_ready(60.0)
        assert running.codes()["arbiter_node"] == 2
