"""The arm's side as real processes: commands are carried out, or refused with a reason, and silence is a stop."""

from __future__ import annotations

import signal

import numpy as np
import pytest
from harness import skip_where_time_is_not_real
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from robot_probe import ROBOT
from sensor_msgs.msg import Image

from udvla_ros.nodes import images, runtime

OFFSET = np.array([0.25, -0.2, 0.2, -0.1, 0.1, 0.3, 0.4])


def test_a_chunk_is_carried_out_within_limits(robot, probe):
    before = robot.violations()
    start = robot.commanded()
    robot.engage()
    robot.chunks.publish(robot.chunk(OFFSET, start))
    goal = start + OFFSET
    probe.until(lambda: np.abs(robot.measured() - goal[:6]).max() < 0.01, "the arm to arrive")
    probe.until(robot.resting, "the command to rest")
    np.testing.assert_allclose(robot.commanded(), goal, atol=5e-3)
    assert robot.episode["state"] in ("running", "waiting")
    assert robot.violations() == before


def test_images_and_joint_states_come_at_their_rates_with_real_stamps(robot, probe):
    skip_where_time_is_not_real()
    topics = {name: camera["topic"] for name, camera in ROBOT.cameras.items()}
    heard = {name: probe.hear(Image, topic, runtime.CAMERA_QOS) for name, topic in topics.items()}
    probe.until(lambda: all(heard.values()), "images of both cameras")
    for messages in (*heard.values(), robot.states):
        messages.clear()
    probe.until(lambda: len(heard["front"]) >= 24, "two seconds of images")
    for name, messages in heard.items():
        stamps = np.array([runtime.to_seconds(m.header.stamp) for m in messages])
        assert 9.0 < 1.0 / np.median(np.diff(stamps)) < 15.0
        assert abs(probe.now() - stamps[-1]) < 0.5
        assert images.to_rgb(messages[-1]).std() > 5, f"{name} shows nothing"
    stamps = np.array([runtime.to_seconds(m.header.stamp) for m in robot.states])
    assert 1.0 / np.median(np.diff(stamps)) == pytest.approx(100.0, rel=0.02)
    assert len(stamps) > 0.7 * 100.0 * (stamps[-1] - stamps[0])
    assert set(robot.states[-1].name) == set(ROBOT.command_names)


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        ("nan", "non_finite"),
        ("unknown joint", "unknown_joint"),
        ("stale", "stale"),
        ("empty", "empty"),
        ("jump", "jump"),
        ("ragged", "malformed"),
    ],
)
def test_a_bad_chunk_is_refused_whole_with_the_reason(robot, probe, bringup, spoil, kind):
    start = robot.commanded()
    robot.engage()
    message = robot.chunk(OFFSET, start)
    if spoil == "nan":
        message.points[4].positions[2] = float("nan")
    elif spoil == "unknown joint":
        message.joint_names = [*message.joint_names[:-1], "left_ear_joint"]
    elif spoil == "stale":
        message.header.stamp = runtime.to_stamp(probe.now() - 5.0)
    elif spoil == "empty":
        message.points = []
    elif spoil == "jump":
        message.points[0].positions[0] += 2.0
    elif spoil == "ragged":
        message.points[3].positions = message.points[3].positions[:4]
    robot.diagnostics.clear()
    robot.chunks.publish(message)
    values = probe.until(
        lambda: kind in robot.values("arbiter_node").get("message", "") and robot.values("arbiter_node"),
        f"'{kind}' on /diagnostics",
    )
    assert values["last_refusal"].startswith(f"policy: {kind}: ") and int(values[f"refused/{kind}"]) >= 1
    probe.until(lambda: any(f"refused policy: {kind}" in line for line in bringup.log("arbiter_node")), "the log")
    np.testing.assert_allclose(robot.commanded(), start, atol=1e-4)


def test_hold_lets_nothing_through(robot, probe):
    start = robot.commanded()
    robot.chunks.publish(robot.chunk(OFFSET, start))
    probe.until(lambda: "not_engaged" in robot.values("arbiter_node").get("message", ""), "the refusal")
    np.testing.assert_allclose(robot.commanded(), start, atol=1e-4)


def test_stop_in_mid_motion_is_latched_and_within_limits(robot, probe):
    before = robot.violations()
    start = robot.commanded()
    robot.engage()
    robot.chunks.publish(robot.chunk(OFFSET, start, steps=40))
    probe.until(lambda: np.abs(np.array(robot.commands[-1].velocity)).max() > 0.05, "motion")
    assert probe.call("arbiter_node/stop").success
    probe.until(robot.resting, "rest")
    assert robot.mode == "STOPPED"
    assert np.abs(robot.commanded() - start - OFFSET).max() > 0.05, "it went on to the goal"
    answer = probe.call("arbiter_node/engage_policy")
    assert not answer.success and "STOPPED" in answer.message
    assert robot.violations() == before


def test_killing_the_policy_in_mid_motion_brings_the_arm_to_rest(robot, probe, bringup):
    skip_where_time_is_not_real()
    before = robot.violations()
    bringup.start(["policy_node"])
    bringup.wait_ready(60.0, names=["policy_node"])
    robot.engage()
    probe.until(lambda: np.abs(np.array(robot.commands[-1].velocity)).max() > 0.05, "motion")
    probe.until(lambda: int(robot.values("arbiter_node").get("accepted", 0)) >= 4, "several chunks")
    probe.until(lambda: np.abs(np.array(robot.commands[-1].velocity)).max() > 0.03, "motion")
    bringup.kill("policy_node", signal.SIGKILL)
    killed = probe.now()
    robot.commands.clear()
    probe.until(robot.resting, "the arm to rest")
    moving = [m for m in robot.commands if np.abs(np.array(m.velocity)).max() > 1e-6]
    rested = runtime.to_seconds(moving[-1].header.stamp) if moving else killed
    assert rested - killed < 1.2, "longer than the tail of a chunk"
    probe.until(lambda: robot.mode == "HOLD", "HOLD")
    end = robot.commanded()
    bringup.start(["policy_node"])  # back again, it must not have the arm
    bringup.wait_ready(60.0, names=["policy_node"])
    np.testing.assert_allclose(robot.commanded(), end, atol=1e-4)
    assert robot.mode == "HOLD"
    bringup.kill("policy_node", signal.SIGINT)
    assert robot.violations() == before


def test_an_episode_is_what_was_asked_for(robot, probe):
    client = probe.node.create_client(SetParameters, "sim_node/set_parameters")
    probe.until(client.service_is_ready, "the parameter service")

    def set_parameters(**values) -> None:
        request = SetParameters.Request()
        request.parameters = [Parameter(n, value=v).to_parameter_msg() for n, v in values.items()]
        future = client.call_async(request)
        probe.until(future.done, "the parameters")
        assert all(result.successful for result in future.result().results)

    try:
        set_parameters(seed=17, task="pick/blue", instruction="lift the blue one, please")
        assert probe.call("sim_node/reset_episode").success
        probe.until(lambda: robot.episode["seed"] == 17, "the episode")
        assert robot.episode["task"] == "pick/blue"
        assert robot.episode["instruction"] == "lift the blue one, please"
        assert robot.episode["steps"] == 0 and not robot.episode["success"]
        set_parameters(task="juggle")
        answer = probe.call("sim_node/reset_episode")
        assert not answer.success and "touch/red" in answer.message
    finally:
        set_parameters(seed=3, task="touch/red", instruction="")


def test_all_end_cleanly_when_told_to(robot, bringup):
    bringup.stop()
    codes = bringup.codes()
    assert codes["sim_node"] == 0 and codes["arbiter_node"] == 0
