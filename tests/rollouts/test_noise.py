"""Noise disturbs what is executed, less near the goal, and never into the table."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from udvla_ros.rollouts.noise import BOX, LOWEST, Noise

ACTION = np.array([0.01, 0.0, -0.02, 0, 0, 0, 1], np.float32)
GOAL = np.array([0.5, 0.0, 0.02])


def spread(noise, position, holding=False, count=2000):
    rng = np.random.default_rng(0)
    executed = [noise.disturb(ACTION, np.array(position), GOAL, holding, rng) for _ in range(count)]
    return np.array(executed) - ACTION


def test_zero_noise_changes_nothing():
    assert not np.any(spread(Noise.scaled(0.0), (0.5, 0.0, 0.2), count=100))


def test_noise_shrinks_near_the_goal():
    far = spread(Noise(), (0.5, 0.1, 0.2))[:, :2].std()
    near = spread(Noise(), (0.5, 0.0, 0.03))[:, :2].std()
    assert 0.008 < far < 0.014
    assert near < 0.4 * far


def test_bursts_are_occasional():
    calm = Noise(sigma=0.0)
    sizes = np.linalg.norm(spread(calm, (0.5, 0.05, 0.2))[:, :3], axis=1)
    moved = sizes > 1e-6
    assert abs(moved.mean() - calm.burst_rate) < 0.02
    assert sizes[moved].min() > 0.019
    assert sizes.max() < 0.041


def test_the_gripper_flips_only_away_from_the_goal_and_never_while_holding():
    assert 0.0 < (spread(Noise(), (0.5, 0.1, 0.2))[:, 6] != 0).mean() < 0.05
    assert not np.any(spread(Noise(), (0.5, 0.0, 0.04))[:, 6])
    assert not np.any(spread(Noise(), (0.5, 0.1, 0.2), holding=True)[:, 6])


inside = st.tuples(st.floats(0.3, 0.68), st.floats(-0.25, 0.25), st.floats(LOWEST, 0.29))


@given(inside, st.integers(0, 1000))
def test_disturbed_targets_stay_in_the_box(position, seed):
    start = np.array(position)
    action = np.zeros(7, np.float32)
    executed = Noise.scaled(5.0).disturb(action, start, GOAL, False, np.random.default_rng(seed))
    reached = start + executed[:3]
    assert np.all(reached >= np.array(BOX[0]) - 1e-6)
    assert np.all(reached <= np.array(BOX[1]) + 1e-6)


@given(st.integers(0, 1000))
def test_never_lower_than_asked(seed):
    start = np.array([0.5, 0.0, 0.06])
    action = np.zeros(7, np.float32)
    executed = Noise().disturb(action, start, GOAL, False, np.random.default_rng(seed), lowest=0.055)
    assert start[2] + executed[2] >= 0.055 - 1e-6


def test_the_labels_are_not_touched():
    action = ACTION.copy()
    Noise().disturb(action, np.array([0.5, 0.1, 0.2]), GOAL, False, np.random.default_rng(1))
    np.testing.assert_array_equal(action, ACTION)
