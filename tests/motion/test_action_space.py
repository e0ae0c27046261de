from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from motion.rig import examples

from udvla_ros.errors import ConfigError
from udvla_ros.motion.action_space import TcpDeltaSpace, closed_fraction, make_action_space
from udvla_ros.motion.errors import UnreachableTarget


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


def test_panda_tracks_a_libero_style_sequence_within_5_mm(panda):
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
