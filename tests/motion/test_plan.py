from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from motion.rig import examples
from scipy.interpolate import BPoly

from udvla_ros.motion import quintic
from udvla_ros.motion.plan import Plan
from udvla_ros.motion.timescale import with_gripper

seeds = st.integers(0, 2**32 - 1)


def knots(seed: int, count: int = 6, size: int = 3):
    rng = np.random.default_rng(seed)
    times = np.concatenate([[0.0], np.cumsum(rng.uniform(0.005, 0.1, count - 1))])
    q, v, a = rng.normal(size=(count, size)), rng.normal(size=(count, size)), rng.normal(size=(count, size))
    v[-1], a[-1] = 0.0, 0.0
    return times, q, v, a


@examples(50)
@given(seeds)
def test_cells_are_the_quintics_through_their_ends(seed):
    times, q, v, a = knots(seed)
    plan = Plan(5.0, times, q, v, a, np.zeros(len(times)))
    reference = BPoly.from_derivatives(times, np.stack([q, v, a], axis=1))
    t = np.linspace(0.0, times[-1], 97)
    for order, value in enumerate(plan.sample(t)):
        scale = np.abs(reference(t, order)).max()
        np.testing.assert_allclose(value, reference(t, order), atol=1e-9 * scale)
    state = plan.state(5.0 + t[40])
    np.testing.assert_allclose(state.q, reference(t[40]), atol=1e-9)


@examples(50)
@given(seeds)
def test_control_points_enclose_every_derivative(seed):
    times, q, v, a = knots(seed)
    curve = BPoly.from_derivatives(times, np.stack([q, v, a], axis=1))
    hulls = quintic.bernstein(np.diff(times), q, v, a)
    for cell in range(len(times) - 1):
        t = np.linspace(times[cell] + 1e-9, times[cell + 1] - 1e-9, 30)
        for order, hull in enumerate(hulls):
            value, slack = curve(t, order), 1e-6 * max(1.0, np.abs(hull[:, cell]).max())
            assert (value <= hull[:, cell].max(axis=0) + slack).all()
            assert (value >= hull[:, cell].min(axis=0) - slack).all()


def test_before_and_after_a_plan_the_arm_rests_at_its_ends():
    times, q, v, a = knots(1)
    plan = Plan(5.0, times, q, v, a, np.linspace(0.0, 1.0, len(times)))
    late = plan.state(plan.end + 100.0)
    np.testing.assert_allclose(late.q, q[-1])
    assert not late.qd.any() and not late.qdd.any()
    assert plan.gripper_at(0.0) == 0.0 and plan.gripper_at(plan.end + 1) == 1.0
    assert plan.at_rest(plan.end) and not plan.at_rest(5.0)


def test_a_resting_plan_rests_from_the_start():
    plan = Plan.rest(np.array([1.0, 2.0]), 0.3, 7.0)
    assert plan.at_rest(7.0) and plan.rest_time == 0.0
    np.testing.assert_allclose(plan.state(7.01).q, [1.0, 2.0])


def test_halves_are_samples_at_knots_and_middles():
    times, q, v, a = knots(2)
    plan = Plan(0.0, times, q, v, a, np.zeros(len(times)))
    at, values = plan.halves
    np.testing.assert_allclose(values, plan.sample(at)[0], atol=1e-12)


def test_points_begin_at_the_knot_before_or_some_time_after():
    times, q, v, a = knots(3)
    plan = Plan(10.0, times, q, v, a, np.zeros(len(times)))
    now = 10.0 + times[2] + 0.002
    points = plan.points_from(now)
    assert points.stamp == pytest.approx(10.0 + times[2]) and points.times[0] == 0.0
    np.testing.assert_array_equal(points.q, q[2:])
    points = plan.points_after(now, 0.005)
    assert points.stamp == now and points.times[0] == pytest.approx(times[3] - times[2] - 0.002)
    assert not points.qd[-1].any() and not points.qdd[-1].any()
    for late in (plan.points_after(plan.end + 3.0, 0.1), plan.points_from(plan.end + 3.0)):
        assert (np.diff(late.times) > 0).all()
        np.testing.assert_allclose(late.q[-1], q[-1])


def test_the_gripper_keeps_its_own_speed_and_finishes_after_the_arm():
    times, q, v, a = knots(4, count=5)
    wanted = np.array([0.0, 0.0, 0.8, 0.8, 0.8])
    plan = with_gripper(0.0, times, q, v, a, wanted, start=0.0, velocity=1.4, period=0.02)
    speed = np.diff(plan.gripper) / np.diff(plan.times)
    assert np.abs(speed).max() <= 1.4 + 1e-9
    assert plan.gripper[-1] == pytest.approx(0.8)
    assert plan.rest_time == pytest.approx(times[-1]) and plan.end > times[-1] + 0.3
    np.testing.assert_allclose(plan.q[len(times) :], np.repeat(q[-1:], len(plan.q) - len(times), axis=0))
