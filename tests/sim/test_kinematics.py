"""The arm's kinematics agree with the published UR5e and with themselves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from udvla_ros.sim.kinematics import UnreachablePose, exp_so3, log_so3

angles = st.floats(-1.8, 1.8, allow_nan=False)


@given(angles, angles, angles)
def test_exp_and_log_are_inverse(x, y, z):
    vector = np.array([x, y, z])
    if np.linalg.norm(vector) > 3.1:
        vector *= 3.1 / np.linalg.norm(vector)
    np.testing.assert_allclose(log_so3(exp_so3(vector)), vector, atol=1e-9)


def test_forward_at_zero_is_the_published_arm(world):
    # DH of the UR5e: reach 0.425 + 0.3922, offsets 0.1333 + 0.0996 and the tool's 0.155 m, height
    # 0.1625 - 0.0997 (Menagerie rounds to millimetres).
    pose = world.kinematics.forward(np.zeros(6))
    np.testing.assert_allclose(pose[:3, 3], [0.8172, 0.2329 + 0.155, 0.0628], atol=2e-3)
    np.testing.assert_allclose(pose[:3, :3], [[-1, 0, 0], [0, 0, 1], [0, 1, 0]], atol=1e-6)


@given(st.lists(st.floats(-0.3, 0.3), min_size=6, max_size=6))
@settings(max_examples=40, deadline=None)
def test_inverse_undoes_forward(world, offsets):
    kinematics = world.kinematics
    pose = kinematics.forward(world.home + np.array(offsets))
    found = kinematics.inverse(pose, world.home, iterations=100)
    np.testing.assert_allclose(kinematics.forward(found), pose, atol=2e-4)


def test_out_of_reach_is_refused(world):
    pose = world.kinematics.forward(world.home)
    pose[0, 3] = 2.0
    with pytest.raises(UnreachablePose, match="cannot reach"):
        world.kinematics.inverse(pose, world.home)


def test_scratch_data_leaves_the_world_alone(world):
    before = world.data.qpos.copy()
    world.kinematics.forward(np.ones(6))
    np.testing.assert_array_equal(world.data.qpos, before)
