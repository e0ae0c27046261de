from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from motion.rig import examples

from udvla_ros.errors import ConfigError
from udvla_ros.motion.action_space import TcpDeltaSpace, closed_fraction, make_action_space
from udvla_ros.motion.errors import UnreachableTarget
from udvla_ros.motion.kinematics import Kinematics
from udvla_ros.proving.bench.tcp_tracking import track


def steps(*rows) -> np.ndarray:
    return np.array(rows, float)


def test_translation_and_rotation_in_the_base_frame(ur5e):
    space = TcpDeltaSpace(ur5e, frame="base")
    start = ur5e.kinematics.forward(ur5e.home)
    targets = space.targets(steps([0.01, 0.02, -0.03, 0, 0, 0.2, 1], [0, 0, 0, 0, 0, 0, -1]), ur5e.home)
    pose = ur5e.kinematics.forward(targets.q[0])
    np.testing.assert_allclose(pose[:3, 3], start[:3, 3] + [0.01, 0.02, -0.03], atol=2e-5)
    c, s = np.cos(0.2), np.sin(0.2)
    np.testing.assert_allclose(pose[:3, :3], [[c, -s, 0], [s, c, 0], [0, 0, 1]] @ start[:3, :3], atol=2e-4)
    np.testing.assert_allclose(ur5e.kinematics.forward(targets.q[1]), pose, atol=5e-4)
    np.testing.assert_allclose(targets.gripper, [1.0, 0.0])


def test_translation_and_rotation_in_the_tcp_frame(ur5e):
    space = TcpDeltaSpace(ur5e, frame="tcp")
    start = ur5e.kinematics.forward(ur5e.home)
    pose = ur5e.kinematics.forward(space.targets(steps([0, 0, 0.02, 0, 0, 0.2, 0]), ur5e.home).q[0])
    np.testing.assert_allclose(pose[:3, 3], start[:3, 3] + 0.02 * start[:3, 2], atol=2e-5)  # along its own z
    c, s = np.cos(0.2), np.sin(0.2)
    np.testing.assert_allclose(pose[:3, :3], start[:3, :3] @ [[c, -s, 0], [s, c, 0], [0, 0, 1]], atol=2e-4)


@examples(25)
@given(st.integers(0, 2**32 - 1))
def test_chunks_integrate_without_drift(ur5e, seed):
    rng = np.random.default_rng(seed)
    actions = np.column_stack([rng.uniform(-0.015, 0.015, (8, 3)), rng.uniform(-0.05, 0.05, (8, 3)), np.ones(8)])
    space = TcpDeltaSpace(ur5e)
    targets = space.targets(actions, ur5e.home)
    poses = space.poses(actions, ur5e.home)
    reached = np.stack([ur5e.kinematics.forward(q) for q in targets.q])
    np.testing.assert_allclose(reached[:, :3, 3], poses[:, :3, 3], atol=2e-5)
    np.testing.assert_allclose(poses[-1, :3, 3] - ur5e.kinematics.forward(ur5e.home)[:3, 3], actions[:, :3].sum(0))


def test_actions_that_cannot_be_made_are_refused_whole_and_named(ur5e):
    space = TcpDeltaSpace(ur5e)
    with pytest.raises(UnreachableTarget, match="step 1: the TCP cannot reach"):
        space.targets(steps([0.01, 0, 0, 0, 0, 0, 1], [0.9, 0, 0, 0, 0, 0, 1]), ur5e.home)
    with pytest.raises(UnreachableTarget, match="step 0 would turn"):
        space.targets(steps([0, 0, 0, 0, 0, 1.2, 1]), ur5e.home)
    with pytest.raises(UnreachableTarget, match="step 1 of the actions is not finite"):
        space.targets(steps([0.01, 0, 0, 0, 0, 0, 1], [np.nan, 0, 0, 0, 0, 0, 1]), ur5e.home)
    with pytest.raises(UnreachableTarget, match=r"\(steps, 7\)"):
        space.targets(np.zeros((3, 6)), ur5e.home)
    with pytest.raises(UnreachableTarget, match=r"\(steps, 7\)"):
        space.targets(np.zeros((0, 7)), ur5e.home)


def test_joint_spaces(ur5e):
    delta = np.full((3, 7), 0.02)
    delta[:, 6] = [1, -1, 0]
    targets = make_action_space("joint_delta", ur5e).targets(delta, ur5e.home)
    np.testing.assert_allclose(targets.q, ur5e.home + 0.02 * np.arange(1, 4)[:, None])
    np.testing.assert_allclose(targets.gripper, [1.0, 0.0, 0.5])
    absolute = np.column_stack([targets.q, delta[:, 6]])
    again = make_action_space("joint_absolute", ur5e).targets(absolute, ur5e.home)
    np.testing.assert_allclose(again.q, targets.q)
    with pytest.raises(UnreachableTarget, match="would turn"):
        make_action_space("joint_absolute", ur5e).targets(absolute, ur5e.home - 0.6)
    with pytest.raises(UnreachableTarget, match="beyond its limit"):
        make_action_space("joint_absolute", ur5e, largest_step=10.0).targets(absolute + 5.0, ur5e.home)


def test_gripper_command_is_absolute_and_clipped():
    np.testing.assert_allclose(closed_fraction(np.array([-1.0, 1.0, 0.0, -3.0, 2.0])), [0.0, 1.0, 0.5, 0.0, 1.0])


def test_unknown_kinds_frames_and_options_are_configuration_errors(ur5e):
    for kind, options in (("tcp", {}), ("tcp_delta", {"frame": "camera"}), ("joint_delta", {"frame": "base"})):
        with pytest.raises(ConfigError):
            make_action_space(kind, ur5e, **options)


def test_a_base_frame_turned_by_half_a_turn_turns_the_actions(ur5e):
    """UR controllers call another frame base than ROS does: x and y are reversed, and so must the arm's way be."""
    kinematics = Kinematics(ur5e.path.parent / "ur5e_sim.urdf", ur5e.joints, "tcp", "base_link_inertia")
    action = steps([0.02, 0.01, 0.03, 0.0, 0.1, 0.0, 0.0])
    start = ur5e.kinematics.forward(ur5e.home)
    reached = [
        ur5e.kinematics.forward(TcpDeltaSpace(robot).targets(action, ur5e.home).q[0])
        for robot in (ur5e, replace(ur5e, kinematics=kinematics))
    ]
    np.testing.assert_allclose(reached[0][:3, 3] - start[:3, 3], [0.02, 0.01, 0.03], atol=2e-5)
    np.testing.assert_allclose(reached[1][:3, 3] - start[:3, 3], [-0.02, -0.01, 0.03], atol=2e-5)
    turns = [(pose[:3, :3] @ start[:3, :3].T)[0, 2] for pose in reached]
    np.testing.assert_allclose(turns, [np.sin(0.1), -np.sin(0.1)], atol=2e-4)


@pytest.mark.parametrize("name", ["ur5e", "panda"])
def test_actions_of_one_frame_taken_for_the_other_lead_elsewhere(name, request):
    """The hand points down: what is down in one frame is up in the other, so a mix-up must never pass unseen."""
    robot = request.getfixturevalue(name)
    down = np.zeros((4, 7))
    down[:, 2] = -0.01
    heights = {
        frame: robot.kinematics.positions(TcpDeltaSpace(robot, frame).targets(down, robot.home).q)[:, 2]
        for frame in ("base", "tcp")
    }
    start = robot.kinematics.forward(robot.home)[2, 3]
    np.testing.assert_allclose(heights["base"] - start, -0.01 * np.arange(1, 5), atol=2e-5)
    np.testing.assert_allclose(heights["tcp"] - start, 0.01 * np.arange(1, 5), atol=1e-3)


def test_a_redundant_arm_that_is_to_stay_stays_and_one_that_creeps_does_not_swing(panda):
    q = panda.home + np.array([0.9, 0.3, -0.7, -0.3, 0.5, 0.2, 0.6])  # far from the middle of its ranges
    still = TcpDeltaSpace(panda).targets(np.zeros((20, 7)), q)
    np.testing.assert_allclose(still.q, np.tile(q, (20, 1)), atol=1e-12)
    creeping = np.zeros((20, 7))
    creeping[:, 0] = 0.001
    moved = TcpDeltaSpace(panda).targets(creeping, q).q
    assert np.abs(np.diff(np.vstack([q, moved]), axis=0)).max() < 0.008


@pytest.mark.parametrize(("name", "frame"), [("panda", "base"), ("panda", "tcp"), ("ur5e", "base")])
def test_libero_style_sequences_are_tracked_within_5_mm_all_the_way_to_the_arm(name, frame, request):
    """10 s at 20 Hz in chunks that overlap and arrive late: kinematics, stitching and filter included."""
    report = track(request.getfixturevalue(name), steps=200, seed=4, frame=frame).as_dict()
    assert report["worst_mm"] < 5.0 and report["median_mm"] < 0.5 and report["worst_degrees"] < 1.0
    assert report["way_m"] > 0.7 and report["fastest_m_s"] > 0.15, "it must move to be tracked"
    assert not report["refused"]


def test_tracking_in_the_wrong_frame_is_seen(panda, monkeypatch):
    right = TcpDeltaSpace.targets

    def wrong(self, actions, q_command):
        return right(TcpDeltaSpace(self.robot, "tcp", scale=self.scale), actions, q_command)

    monkeypatch.setattr(TcpDeltaSpace, "targets", wrong)
    assert track(panda, steps=60, seed=4).mm.max() > 20.0


def test_kinematics_of_a_wild_libero_style_sequence_stay_within_5_mm(panda):
    """Normalised actions in LIBERO's scale, 200 steps of free space in chunks of 8, each from the last."""
    scale = np.array([0.05] * 3 + [0.5] * 3)
    space = TcpDeltaSpace(panda, scale=scale)
    rng, q = np.random.default_rng(5), panda.home
    want, worst = panda.kinematics.forward(q)[:3, 3], 0.0
    centre = want.copy()
    for _ in range(25):
        turn, drift, actions, there = rng.normal(size=3) * 0.15, rng.normal(size=3) * 0.4, np.zeros((8, 7)), want
        for action in actions:  # wander about the start
            action[:3] = np.clip(drift + rng.normal(size=3) * 0.3 + 5.0 * (centre - there), -1, 1)
            there = there + action[:3] * scale[:3]
        actions[:4, 3:6], actions[4:, 3:6] = turn, -turn  # and turn there and back
        targets = space.targets(actions, q)
        wanted = want + np.cumsum(actions[:, :3] * scale[:3], axis=0)
        reached = panda.kinematics.positions(targets.q)
        worst = max(worst, float(np.linalg.norm(reached - wanted, axis=1).max()))
        q, want = targets.q[-1], wanted[-1]
    assert worst < 0.005


def test_a_chunk_of_eight_takes_less_than_5_ms_of_cpu(ur5e):
    space = TcpDeltaSpace(ur5e)
    actions = np.tile([0.02, -0.01, 0.005, 0, 0, 0.05, 1], (8, 1))
    space.targets(actions, ur5e.home)
    costs = []
    for _ in range(20):
        begin = time.process_time()
        space.targets(actions, ur5e.home)
        costs.append(time.process_time() - begin)
    assert min(costs) < 0.005
