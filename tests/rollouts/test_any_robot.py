"""Cameras by any name, arms without a gripper, joint spaces, and whose each step was."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import synthetic_bag as synthetic
from hypothesis import given
from hypothesis import strategies as st
from synthetic_bag import Recording, finished

from udvla_ros.motion.action_space import make_action_space
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.rollouts.actions import SPACES, actions_of, described, difference
from udvla_ros.rollouts.bags.episode import Told
from udvla_ros.rollouts.bags.export import Wish, export_episodes
from udvla_ros.rollouts.bags.hands import whose
from udvla_ros.rollouts.bags.topic import BagError
from udvla_ros.rollouts.episodes import By, read_description, read_episodes

ROBOTS = {name: RobotDescription.load(name) for name in ("ur5e_sim", "so101")}
ROBOTS["bare"] = replace(ROBOTS["ur5e_sim"], gripper=None)


@pytest.mark.parametrize("name, space", [(n, s) for n in ROBOTS for s in SPACES if (n, s) != ("so101", "tcp_delta")])
@given(seed=st.integers(0, 99))
def test_actions_carried_out_are_the_path(name, space, seed):
    """What is written as actions leads, by the arm's own action space, along the very path it was taken from."""
    robot = ROBOTS[name]
    rng = np.random.default_rng(seed)
    q = robot.home + 0.02 * rng.uniform(-1, 1, (9, len(robot.joints))).cumsum(axis=0)
    path = q
    if robot.gripper:
        path = np.column_stack([q, robot.gripper.position(np.repeat(rng.integers(0, 2), 9))])
    actions = actions_of(path, robot, space)
    assert actions.shape == (8, described(robot, space, 8, 10.0)["dimensions"])
    targets = make_action_space(space, robot).targets(actions, q[0])
    np.testing.assert_allclose(targets.q, q[1:], atol=5e-4)  # what inverse kinematics leaves
    if robot.gripper:
        np.testing.assert_array_equal(targets.gripper, robot.gripper.fraction(path[1:, -1]))


def test_descriptions_differ_in_words():
    a = described(ROBOTS["ur5e_sim"], "tcp_delta", 8, 10.0)
    b = described(ROBOTS["so101"], "joint_delta", 8, 10.0)
    assert difference(a, a) == "" and "space tcp_delta and joint_delta" in difference(a, b)


@pytest.fixture
def side_camera(tmp_path):
    """A bag of one camera, called ``side``, and the robot file that says so."""
    robot = tmp_path / "mine.yaml"
    text = ROBOTS["ur5e_sim"].path.read_text()
    text = text.replace("urdf: ur5e_sim.urdf", f"urdf: {ROBOTS['ur5e_sim'].path.parent / 'ur5e_sim.urdf'}")
    begin, end = text.index("cameras:"), text.index("topics:")
    robot.write_text(text[:begin] + "cameras:\n  side: {topic: side/color}\n" + text[end:])
    recording = Recording(labels={**synthetic.LABELS, "robot": str(robot)}).fill()
    recording.drop(lambda t, topic, m: topic == "/wrist/image_raw")
    recording.messages = [(t, n.replace("/front/image_raw", "/side/color"), k, m) for t, n, k, m in recording.messages]
    return finished(recording, tmp_path / "bags" / "one")


def test_any_camera_and_joint_space(side_camera, tmp_path):
    export_episodes([side_camera], tmp_path / "out", Wish(space="joint_delta"))
    told = read_description(tmp_path / "out")
    assert told["cameras"] == {"side": [48, 64]} and told["robots"] == {"ur5e_sim": 1}
    assert told["action"]["space"] == "joint_delta" and told["action"]["units"]["elbow_joint"] == "rad"
    [episode] = read_episodes(tmp_path / "out")
    steps = np.diff(episode.q_command, axis=0)
    np.testing.assert_allclose(episode.actions[:, :6], steps, atol=0.02)  # pictures lie off the grid by up to 1/24 s


def test_episodes_of_other_cameras_do_not_join(side_camera, tmp_path):
    other = synthetic.episode(tmp_path / "bags" / "two")
    with pytest.raises(BagError, match=r"cameras are side and front, wrist; .*in common: --camera"):
        export_episodes([side_camera, other], tmp_path / "out", Wish())


MODES = ((0.0, "HOLD"), (1.0, "POLICY"), (4.0, "TELEOP"), (6.0, "HOLD"), (6.5, "POLICY"), (9.0, "HOLD"))


def test_whose_each_step_was():
    modes = Told([t for t, _ in MODES], [mode for _, mode in MODES])
    by = whose(modes, np.array([0.5, 1.5, 2.5, 3.9, 4.1, 5.9, 6.2, 7.0, 8.9, 9.5]), before=2.0)
    n, p, c = By.NOBODY, By.POLICY, By.CORRECTION
    assert by.tolist() == [n, p, n, n, c, c, n, p, p, n], "what led to the takeover, and rest, are no labels"
    hand = Told([0.0, 1.0, 5.0], ["HOLD", "TELEOP", "HOLD"])
    assert whose(hand, np.array([2.0])).tolist() == [By.DEMONSTRATED]


def taken_over(folder):
    recording = Recording().fill()
    at = dict(zip(("POLICY", "TELEOP", "HOLD"), (0.9, 3.0, 5.4), strict=True))
    recording.drop(lambda t, topic, m: topic.startswith("/arbiter/mode"))
    for mode, t in at.items():
        recording.add(t, "arbiter/mode", "std_msgs/msg/String", synthetic.text(mode))
    recording.messages.sort(key=lambda entry: entry[0])
    return finished(recording, folder)


def test_only_corrections_and_never_what_led_to_them(tmp_path):
    bag = taken_over(tmp_path / "bags" / "helped")
    untouched = synthetic.episode(tmp_path / "bags" / "untouched")
    report = export_episodes([bag], tmp_path / "all", Wish(before=1.0))
    [episode] = read_episodes(tmp_path / "all")
    counts = {by: int((episode.intervention == by).sum()) for by in By}
    assert min(counts[By.POLICY], counts[By.CORRECTION], counts[By.NOBODY]) >= 9 and not counts[By.DEMONSTRATED]
    assert report.steps == len(episode.learnable) == counts[By.POLICY] + counts[By.CORRECTION]
    report = export_episodes([bag, untouched], tmp_path / "some", Wish(only_corrections=True))
    assert "no correction" in report.left_out[str(untouched)]
    [episode] = read_episodes(tmp_path / "some")
    assert (episode.intervention[episode.learnable] == By.CORRECTION).all() and len(episode.learnable)
    assert json.loads((tmp_path / "some" / "dataset.json").read_text())["steps_by"]["correction"] == report.steps
