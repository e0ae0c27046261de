"""The look-alike of joint_trajectory_controller keeps the real one's rules; test_jtc_traces.py compares the figures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from udvla_ros.sim.jtc import JointTrajectoryController, TrajectoryCommand, TrajectoryRejected

JOINTS = ("a", "b", "c")
START = np.array([0.1, 0.2, 0.3])
STILL = np.zeros(3)


def controller(**options) -> JointTrajectoryController:
    return JointTrajectoryController(JOINTS, START, **options)


def command(times=(1.0, 2.0), positions=None, **fields) -> TrajectoryCommand:
    times = np.asarray(times, float)
    if positions is None:
        positions = np.arange(1.0, len(times) + 1)[:, None] * np.ones(3)
    return TrajectoryCommand(JOINTS, times, np.asarray(positions, float), **fields)


@st.composite
def commands(draw):
    """Valid trajectories in any joint order; one that moves at its end is not valid."""
    n = draw(st.integers(1, 6))
    number = st.floats(-3, 3, allow_nan=False)
    rows = st.lists(st.tuples(number, number, number), min_size=n, max_size=n).map(np.array)
    steps = draw(st.lists(st.floats(0.01, 1.0), min_size=n, max_size=n))
    velocities = draw(rows) if draw(st.booleans()) else None
    if velocities is not None:
        velocities[-1] = 0.0
    accelerations = draw(rows) if velocities is not None and draw(st.booleans()) else None
    names = tuple(draw(st.permutations(JOINTS)))
    return TrajectoryCommand(names, np.cumsum(steps), draw(rows), velocities, accelerations)


PERIOD = 0.01


@given(commands(), st.floats(1.0, 1e5))
def test_writes_the_point_that_is_due_in_the_next_cycle_and_rests_at_the_last(trajectory, now):
    jtc = controller()
    jtc.accept(trajectory, now)
    order = [trajectory.names.index(joint) for joint in JOINTS]
    jtc.update(now, START, STILL)
    begin = now
    for k, time in enumerate(trajectory.times):
        due = now + time - PERIOD
        if due <= begin:
            continue
        sample = jtc.update(due, START, STILL, due - begin)
        begin = due
        np.testing.assert_allclose(sample.position, trajectory.positions[k, order], atol=1e-4)
    sample = jtc.update(begin + 5.0, START, STILL, 5.0)
    np.testing.assert_array_equal(sample.position, trajectory.positions[-1, order])
    np.testing.assert_array_equal(sample.velocity, STILL)
    assert jtc.idle


@settings(max_examples=30)
@given(st.lists(commands(), min_size=1, max_size=3), st.integers(1, 60), st.booleans(), st.floats(0.1, 1.0))
def test_playing_many_cycles_is_playing_them_one_by_one(trajectories, between, from_desired, scaling):
    one, many = (controller(interpolate_from_desired_state=from_desired) for _ in range(2))
    now = 10.0
    for trajectory in trajectories:
        for jtc in (one, many):
            jtc.accept(trajectory, now)
            jtc.scaling = scaling
        here = one.command
        times = now + PERIOD * np.arange(between)
        written = [one.update(t, here.position, here.velocity).position for t in times]
        np.testing.assert_allclose(many.play(now, between), written, atol=1e-9)
        now += PERIOD * between


@pytest.mark.parametrize(
    ("trajectory", "said"),
    [
        (command(times=(), positions=np.zeros((0, 3))), "empty"),
        (replace(command(), names=("a", "b")), "no partial goals"),
        (replace(command(), names=("a", "b", "elbow")), "unknown joints: elbow"),
        (replace(command(), names=("a", "b", "b")), "twice"),
        (command(times=(1.0, 1.0)), "points 0 and 1 are not strictly increasing"),
        (command(times=(1.0, np.nan)), "not strictly increasing"),
        (command(stamp=5.0), r"ended 3\.000 s ago"),
        (command(velocities=np.ones((2, 3))), "last point is not zero"),
        (command(velocities=np.zeros((1, 3))), "velocities have shape"),
        (replace(command(), positions=None), "without positions"),
    ],
)
def test_rejects_and_goes_on_with_what_it_had(trajectory, said):
    jtc = controller()
    jtc.accept(command(), 10.0)
    jtc.update(10.0, START, STILL)
    expected = controller()
    expected.accept(command(), 10.0)
    expected.update(10.0, START, STILL)
    with pytest.raises(TrajectoryRejected, match=said):
        jtc.accept(trajectory, 10.0)
    for time in (10.5, 11.5, 12.5):
        np.testing.assert_array_equal(
            jtc.update(time, START, STILL).position, expected.update(time, START, STILL).position
        )


def test_a_plan_sent_again_with_the_knot_before_now_does_not_disturb_it():
    """With a first point after now the controller bridges, from a state that it takes for one period younger."""
    t = np.linspace(0.0, 2.0, 21)
    curve = 0.5 * (1 - np.cos(np.pi * t / 2)), np.pi / 4 * np.sin(np.pi * t / 2), np.pi**2 / 8 * np.cos(np.pi * t / 2)
    rows = [np.repeat(x[:, None], 3, axis=1) for x in curve]
    rows[1][-1] = 0.0

    def worst(first: int) -> float:
        jtc, alone = (controller(period=0.002, interpolate_from_desired_state=True) for _ in range(2))
        for each in (jtc, alone):
            each.accept(TrajectoryCommand(JOINTS, t, *rows, stamp=10.0), 10.0)
        off = 0.0
        for k in range(900):
            now = 10.0 + 0.002 * k
            if k == 315:
                assert t[6] < now - 10.0 < t[7]
                jtc.accept(TrajectoryCommand(JOINTS, t[first:], *(x[first:] for x in rows), stamp=10.0), now)
            apart = jtc.update(now, START, STILL).position - alone.update(now, START, STILL).position
            off = max(off, np.abs(apart).max())
        return off

    assert worst(6) < 1e-9 and worst(7) > 1e-5


def test_a_stamp_in_the_past_drops_what_has_elapsed():
    jtc = controller()
    jtc.accept(command(stamp=8.5), 10.0)
    np.testing.assert_allclose(jtc.update(10.0, START, STILL).position, 1.5 + PERIOD)


def test_first_point_at_zero_is_a_step():
    jtc = controller()
    jtc.accept(command(times=(0.0, 1.0)), 10.0)
    np.testing.assert_allclose(jtc.update(10.0, START, STILL).position, 1.0 + PERIOD)


def test_checks_neither_limits_nor_nan():
    jtc = controller()
    jtc.accept(command(positions=[[1e6] * 3, [np.nan] * 3]), 10.0)
    jtc.update(10.0, START, STILL)
    assert np.isnan(jtc.update(13.0, START, STILL, 3.0).position).all()


def test_may_be_told_to_allow_a_moving_end():
    jtc = controller(allow_nonzero_velocity_at_end=True)
    jtc.accept(command(velocities=np.ones((2, 3))), 10.0)


def test_inactive_it_drops_messages_and_active_again_it_leaps():
    jtc = controller(interpolate_from_desired_state=True)
    jtc.accept(command(), 10.0)
    jtc.update(10.0, START, STILL)
    jtc.deactivate()
    jtc.accept(command(times=(0.5, 1.0)), 10.1)
    np.testing.assert_array_equal(jtc.update(11.0, START, STILL).position, jtc.command.position)
    jtc.activate(START)
    np.testing.assert_array_equal(jtc.update(11.5, START, STILL).position, START)
    jtc.accept(command(stamp=10.0), 11.51)
    assert (jtc.update(11.51, START, STILL).position > 1.5).all(), "a plan that went on without it"


def test_scaled_it_falls_behind_and_catches_up_at_the_next_message():
    jtc = controller(interpolate_from_desired_state=True)
    jtc.scaling = 0.5
    ramp = command(positions=[START, START + 1.0], stamp=10.0)
    jtc.accept(ramp, 10.0)
    for k in range(151):
        behind = jtc.update(10.0 + PERIOD * k, START, STILL).position
    jtc.accept(ramp, 11.51)
    assert (behind < START + 1e-9).all() and (jtc.update(11.51, START, STILL).position > START + 0.5).all()


def test_behind_its_plan_it_holds_where_it_is_and_takes_the_next_message_as_if_nothing_were():
    jtc = controller(interpolate_from_desired_state=True, path_tolerance=0.2)
    jtc.accept(command(), 10.0)
    for k in range(100):
        held = jtc.update(10.0 + PERIOD * k, START, STILL).position
    np.testing.assert_array_equal(held, START)
    assert jtc.aborted == 1 and jtc.idle
    jtc.accept(command(times=(0.02, 1.0), positions=[START + 0.15, START + 0.15], stamp=10.99), 11.0)
    assert (jtc.update(11.0, START, STILL).position > START + 0.1).all()


def test_activation_needs_every_joint():
    with pytest.raises(ValueError, match="3 joints"):
        controller().activate(np.zeros(2))
