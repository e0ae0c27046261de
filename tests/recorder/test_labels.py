"""What a bag says about itself, and which topics go into it."""

from __future__ import annotations

import json

import pytest
from recorded import string

from udvla_ros.motion.robot import RobotDescription
from udvla_ros.rollouts.bags.labels import Labels
from udvla_ros.rollouts.bags.source import text_of
from udvla_ros.rollouts.bags.topics import episode_topics

ROBOT = RobotDescription.load("ur5e_sim")


def test_labels_are_what_was_said():
    labels = Labels({"robot": "ur5e_sim"}, 5.0)
    labels.hear("instruction", "touch the red cube")
    labels.hear("policy_node/chunk_info", json.dumps({"bundle": "nano", "bundle_hash": "5c417", "chunk": 1}))
    labels.hear("policy_node/chunk_info", "not JSON")
    labels.decoder = {"denoise_steps": 8}
    assert "outcome" not in labels.texts()  # nobody has said anything: a killed recording is not a failure
    labels.judge("success")
    told = labels.closing(9.5, {"/front/image_raw": 2}, {})
    assert told["instruction"] == "touch the red cube" and told["bundle_hash"] == "5c417"
    assert told["robot"] == "ur5e_sim"
    assert (told["outcome"], told["labelled_by"]) == ("success", "operator")
    assert json.loads(told["dropped"]) == {"/front/image_raw": 2} and json.loads(told["lost"]) == {}
    assert json.loads(told["decoder"]) == {"denoise_steps": 8}
    assert all(isinstance(value, str) for value in told.values())


def test_the_sentence_is_what_the_policy_acts_on_and_stop_is_none():
    labels = Labels({}, 0.0, instruction="touch the red cube")
    labels.hear("policy_node/chunk_info", json.dumps({"bundle_hash": "5c417", "instruction": "touch the blue cube"}))
    assert labels.instruction == "touch the blue cube", "a parameter said it, no topic"
    labels.hear("instruction", "pick up the red cube")
    labels.hear("instruction", "Halt!")
    labels.hear("policy_node/chunk_info", json.dumps({"bundle_hash": "0ther"}))
    assert labels.instruction == "pick up the red cube" and labels.bundle_hash == "5c417"


@pytest.mark.parametrize(
    ("states", "said", "outcome", "by"),
    [
        (["running", "succeeded", "waiting"], "", "success", "simulation"),
        (["running", "failed"], "", "failure", "simulation"),
        (["running", "failed"], "success", "success", "operator"),
        (["running"], "", "unknown", ""),
    ],
)
def test_the_operator_has_the_last_word_then_the_simulation(states, said, outcome, by):
    labels = Labels({}, 0.0)
    for state in states:
        labels.hear("sim_node/episode", json.dumps({"state": state}))
    labels.judge(said)
    assert (labels.outcome, labels.labelled_by) == (outcome, by)


@pytest.mark.parametrize("text", ["", "touch the red cube", "größer, 大きい"])
def test_text_of_a_raw_string(text):
    assert text_of(string(text)) == text


@pytest.mark.parametrize("data", [b"", b"\0\1\0\0", string("some text")[:-3]])
def test_what_is_no_string_is_said_to_be_none(data):
    with pytest.raises(ValueError, match="bytes"):
        text_of(data)


def test_topics_come_from_the_robot_file_and_from_the_user():
    names = [name for want in episode_topics(ROBOT, extra="/rosout, my/topic joint_states") for name in want.names]
    assert len(names) == len(set(names))
    assert set(names) >= {
        "front/image_raw", "wrist/image_raw", "joint_states", "joint_trajectory_controller/joint_trajectory",
        "gripper_controller/joint_trajectory", "policy/joint_trajectory", "teleop/joint_trajectory",
        "arbiter/command", "arbiter/mode", "arbiter/mode_reason", "instruction", "emergency_stop", "/diagnostics",
        "policy_node/chunk_info", "policy_node/predicted_image", "policy_node/predicted_image/wrist",
        "sim_node/episode", "/tf_static", "robot_description", "/rosout", "my/topic",
    }  # fmt: skip
    needed = [want.names[0] for want in episode_topics(ROBOT) if want.needed]
    assert needed == ["front/image_raw", "wrist/image_raw", "joint_states"]


def test_compressed_images_are_preferred_where_that_is_asked_for():
    cameras = [want.names for want in episode_topics(ROBOT, images="compressed") if want.camera]
    assert cameras == [(f"{name}/image_raw/compressed", f"{name}/image_raw") for name in ("front", "wrist")]


def test_a_gripper_with_an_action_is_recorded_by_its_status():
    names = {name for want in episode_topics(RobotDescription.load("panda")) for name in want.names}
    assert "panda_gripper/gripper_action/_action/status" in names
