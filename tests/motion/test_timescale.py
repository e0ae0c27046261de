from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from motion.rig import examples

from udvla_ros.motion.timescale import Slowness, knot_times

gentle = st.lists(st.tuples(st.floats(0.0, 0.999), st.floats(1.0, 5.0)), max_size=6)
demands = st.lists(st.tuples(st.floats(0.0, 0.999), st.floats(1.0, 30.0)), max_size=6)


def raised(end: float, moving: bool, asked: list) -> Slowness:
    slowness = Slowness(end, moving)
    for where, least in asked:
        slowness.raise_to(np.array([where * end]), np.array([least]))
    return slowness


@examples(100)
@given(st.floats(0.01, 4.0), st.booleans(), gentle)
def test_time_scaling_is_smooth_increasing_and_never_faster_than_asked(end, moving, asked):
    slowness = raised(end, moving, asked)
    duration = slowness.duration(end)
    t = np.linspace(0.0, duration, 4000)
    s, rate, slope = slowness.progress(t)
    assert duration >= end - 1e-9
    assert abs(s[0]) < 1e-9 and abs(s[-1] - end) < 1e-6
    assert (rate <= 1.0 + 1e-9).all() and (rate > 0.0).all()
    # Rate and slope are the derivatives of progress, and integrate back to it.
    step = t[1] - t[0]
    np.testing.assert_allclose(np.diff(s), (rate[1:] + rate[:-1]) / 2 * step, atol=10.0 * step**2)
    np.testing.assert_allclose(np.diff(rate), (slope[1:] + slope[:-1]) / 2 * step, atol=1500.0 * step**2 + 1e-9)
    if moving:
        assert abs(rate[0] - 1.0) < 1e-9 and abs(slope[0]) < 1e-9


@examples(100)
@given(st.floats(0.05, 4.0), demands)
def test_slowness_is_at_least_what_was_demanded(end, asked):
    slowness = raised(end, False, asked)
    for where, least in asked:
        assert slowness.at(np.array([where * end]))[0] >= least - 1e-9


@examples(100)
@given(st.floats(0.0, 2e9), st.floats(0.0, 5.0), st.sampled_from([0.0, 0.013, 0.5]))
def test_knots_of_all_plans_lie_on_one_grid_but_the_one_where_the_arm_rests(now, duration, after):
    times = knot_times(now, duration, 0.02, after)
    assert times[0] == 0.0 and times[-1] >= duration + after - 1e-9 and times[1] >= 0.005 - 1e-9
    # A rest before the first knot of the grid takes that knot's place; the grid's next one may be two periods on.
    longest = np.full(len(times) - 1, 0.0351)
    longest[1:2] = 0.0401 if duration < 0.025 else 0.0351
    assert (np.diff(times) > 0.004).all() and (np.diff(times) < longest).all()
    off_grid = np.abs((now + times[1:]) / 0.02 - np.round((now + times[1:]) / 0.02))
    rest = times[1:][off_grid >= 1e-4]
    assert len(rest) <= 1 and (np.abs(rest - max(duration, 0.005)) < 1e-9).all()
    assert duration < 0.005 or np.abs(times - duration).min() < 1e-9
