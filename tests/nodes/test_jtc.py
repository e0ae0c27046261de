"""The look-alike of joint_trajectory_controller keeps the real one's rules."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from udvla_ros.nodes.jtc import JointTrajectoryController, TrajectoryCommand, TrajectoryRejected, interpolate

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


@given(commands(), st.floats(1.0, 1e9))
def test_passes_through_every_point_and_rests_at_the_last(trajectory, now):
    jtc = controller()
    jtc.accept(trajectory, now)
    order = [trajectory.names.index(joint) for joint in JOINTS]
    jtc.update(now, START, STILL)
    for k, time in enumerate(trajectory.times):
        sample = jtc.update(now + time, START, STILL)
        np.testing.assert_allclose(sample.position, trajectory.positions[k, order], atol=1e-4)
        if trajectory.velocities is not None and k < len(trajectory.times) - 1 and now < 1e6:
            np.testing.assert_allclose(sample.velocity, trajectory.velocities[k, order], atol=1e-3)
    sample = jtc.update(now + trajectory.times[-1] + 5.0, START, STILL)
    np.testing.assert_array_equal(sample.position, trajectory.positions[-1, order])
    np.testing.assert_array_equal(sample.velocity, STILL)
    assert jtc.idle


@given(commands(), st.booleans())
def test_starts_where_the_arm_is_or_where_it_was_told_to_be(trajectory, from_desired):
    jtc = controller(interpolate_from_desired_state=from_desired)
    measured = START + 0.05
    jtc.update(10.0, measured, STILL)
    jtc.accept(trajectory, 10.0)
    sample = jtc.update(10.0, measured, STILL)
    np.testing.assert_allclose(sample.position, START if from_desired else measured, atol=1e-12)


@settings(max_examples=20)
@given(st.floats(0.003, 0.02), st.floats(0.1, 0.9))
def test_a_replacement_that_continues_the_motion_does_not_disturb_it(period, switch):
    """A plan sent again from where it is, stamped with its own time: the output must not notice."""
    times = np.linspace(0.1, 2.0, 20)
    at = lambda t: (0.5 * (1 - np.cos(np.pi * t / 2)), 0.25 * np.pi * np.sin(np.pi * t / 2))  # noqa: E731
    acceleration = lambda t: np.pi**2 / 8 * np.cos(np.pi * t / 2)  # noqa: E731

    def message(begin: float) -> TrajectoryCommand:
        t = times[times > begin + 0.005]
        q, v = at(t)
        columns = [np.repeat(x[:, None], 3, axis=1) for x in (q, v, acceleration(t))]
        columns[1][-1] = 0.0
        return TrajectoryCommand(JOINTS, t - begin, *columns, stamp=10.0 + begin)

    q, v = (np.repeat(np.array([x]), 3) for x in at(0.0))
    jtc = JointTrajectoryController(JOINTS, q, interpolate_from_desired_state=True)
    alone = JointTrajectoryController(JOINTS, q, interpolate_from_desired_state=True)
    for controller_ in (jtc, alone):
        controller_.accept(message(0.0), 10.0)
    sent = False
    for k in range(int(1.5 / period)):
        now = 10.0 + k * period
        if not sent and now > 10.0 + switch:
            jtc.accept(message(now - 10.0 - 0.002), now)
            sent = True
        difference = jtc.update(now, q, v).position - alone.update(now, q, v).position
        assert np.abs(difference).max() < 1e-4  # a knot inside the bridge is skipped
    assert sent


@given(commands(), commands(), st.floats(0.0, 1.0))
def test_replacement_from_the_desired_state_never_jumps(first, second, share):
    jtc = controller(interpolate_from_desired_state=True)
    jtc.accept(first, 10.0)
    jtc.update(10.0, START, STILL)
    switch = 10.0 + share * float(first.times[-1])
    before = jtc.update(switch, START, STILL).position
    jtc.accept(second, switch)
    np.testing.assert_allclose(jtc.update(switch, START, STILL).position, before, atol=1e-9)


def test_the_bridge_begins_in_the_cycle_before_the_trajectory_came():
    jtc = controller(interpolate_from_desired_state=True)
    jtc.update(9.9, START, STILL)
    jtc.accept(command(), 10.0)
    np.testing.assert_allclose(jtc.update(10.0, START, STILL).position, START + (1.0 - START) * 0.1 / 1.1)


def test_interpolation_is_linear_cubic_or_quintic_by_what_both_ends_give():
    a, b = np.zeros(1), np.ones(1)
    v, acc = np.array([2.0]), np.array([3.0])
    linear = interpolate(0.0, (a, None, None), 2.0, (b, np.zeros(1), None), 0.5)
    assert linear.position[0] == pytest.approx(0.25) and linear.velocity[0] == pytest.approx(0.5)
    cubic = interpolate(0.0, (a, np.zeros(1), acc), 2.0, (b, np.zeros(1), None), 1.0)
    assert cubic.position[0] == pytest.approx(0.5) and cubic.velocity[0] == pytest.approx(0.75)
    for time, (p, pv, pa) in {0.0: (a, v, acc), 2.0: (b, -v, acc)}.items():
        end = interpolate(0.0, (a, v, acc), 2.0, (b, -v, acc), time)
        np.testing.assert_allclose(end.position, p, atol=1e-12)
        np.testing.assert_allclose(end.velocity, pv, atol=1e-12)
        assert end.acceleration is not None
        np.testing.assert_allclose(end.acceleration, pa, atol=1e-12)


@given(st.floats(-2, 2), st.floats(-2, 2), st.floats(-2, 2), st.floats(-2, 2), st.floats(0.05, 0.95))
def test_velocity_is_the_derivative_of_position(p, v, acc, w, share):
    a = (np.zeros(1), np.array([v]), np.array([acc]))
    b = (np.array([p]), np.array([w]), np.array([-acc]))
    h = 1e-5
    low, mid, high = (interpolate(0.0, a, 1.5, b, 1.5 * share + s) for s in (-h, 0.0, h))
    np.testing.assert_allclose((high.position - low.position) / (2 * h), mid.velocity, atol=1e-5)
    np.testing.assert_allclose((high.velocity - low.velocity) / (2 * h), mid.acceleration, atol=1e-4)


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


def test_a_stamp_in_the_past_drops_what_has_elapsed():
    jtc = controller()
    jtc.accept(command(stamp=8.5), 10.0)
    np.testing.assert_allclose(jtc.update(10.0, START, STILL).position, 1.5)


def test_a_stamp_in_the_future_waits_on_the_way_to_the_first_point():
    jtc = controller()
    jtc.accept(command(stamp=11.0), 10.0)
    jtc.update(10.0, START, STILL)
    np.testing.assert_allclose(jtc.update(11.0, START, STILL).position, (START + 1.0) / 2)
    np.testing.assert_allclose(jtc.update(12.0, START, STILL).position, 1.0)


def test_first_point_at_zero_is_a_step():
    jtc = controller()
    jtc.accept(command(times=(0.0, 1.0)), 10.0)
    np.testing.assert_allclose(jtc.update(10.0, START, STILL).position, 1.0)


def test_a_lagging_arm_is_dragged_back_unless_the_desired_state_is_used():
    for from_desired, expected in ((True, 1.0), (False, 0.7)):
        jtc = controller(interpolate_from_desired_state=from_desired)
        jtc.accept(command(), 10.0)
        jtc.update(10.0, START, STILL)
        jtc.update(11.0, START, STILL)
        jtc.accept(command(), 11.0)
        np.testing.assert_allclose(jtc.update(11.0, np.full(3, 0.7), STILL).position, expected)


def test_checks_neither_limits_nor_nan():
    jtc = controller()
    jtc.accept(command(positions=[[1e6] * 3, [np.nan] * 3]), 10.0)
    jtc.update(10.0, START, STILL)
    assert np.isnan(jtc.update(13.0, START, STILL).position).all()


def test_may_be_told_to_allow_a_moving_end():
    jtc = controller(allow_nonzero_velocity_at_end=True)
    jtc.accept(command(velocities=np.ones((2, 3))), 10.0)


def test_reset_holds_the_new_position():
    jtc = controller()
    jtc.accept(command(), 10.0)
    jtc.update(10.0, START, STILL)
    jtc.reset(START + 1.0)
    assert jtc.idle
    np.testing.assert_array_equal(jtc.update(11.0, START, STILL).position, START + 1.0)
    with pytest.raises(ValueError, match="3 joints"):
        jtc.reset(np.zeros(2))


@pytest.mark.parametrize(
    ("late", "lead", "kept"), [(-0.04, 0.02, True), (0.0, 0.02, True), (0.03, 0.02, True), (0.03, 0.0, False)]
)
def test_a_plan_is_taken_up_without_a_seam_by_a_controller_that_is_early_or_late(late, lead, kept):
    """Switches in mid-motion, for a controller that is ahead of the arbiter or behind it; late it needs the lead."""
    from udvla_ros.motion.arbiter import Arbiter
    from udvla_ros.motion.robot import RobotDescription
    from udvla_ros.motion.stitch import StitchOptions
    from udvla_ros.motion.trajectory import Trajectory
    from udvla_ros.nodes.audit import CommandAudit

    robot, begin = RobotDescription.load("ur5e_sim"), 1000.0
    arbiter = Arbiter(robot, stitch=StitchOptions(lead=lead))
    names, limits, rng = robot.command_names, robot.limits, np.random.default_rng(0)
    controller = JointTrajectoryController(robot.joints, robot.home, interpolate_from_desired_state=True)
    audit = CommandAudit(limits.hard_lower, limits.hard_upper, limits.velocity, limits.acceleration)
    for tick in range(800):
        now = begin + 0.01 * tick
        there = controller.desired
        arbiter.observe(names, [*there.position, 0.0], [*there.velocity, 0.0], now)
        if tick % 150 == 20:
            arbiter.reset(now)
            arbiter.engage("teleop", now)
        if tick % 150 == 149:
            arbiter.stop("in mid-motion", now)
        elif tick % 7 == 3:
            start, target = arbiter.plan.state(now).q, robot.home + rng.uniform(-0.3, 0.3, 6)
            points = start + np.outer(np.arange(1, 5) / 4, np.clip(target - start, -0.15, 0.15))
            arbiter.offer("teleop", Trajectory(robot.joints, 0.1 * np.arange(1, 5), points, None, now), now)
        arbiter.tick(now)
        plan = arbiter.take()
        if plan is not None:
            times, q, qd, qdd, _ = arbiter.points(plan, now)
            with contextlib.suppress(TrajectoryRejected):  # a rest that is over when it arrives: it stands there
                controller.accept(TrajectoryCommand(robot.joints, times, q, qd, qdd, now), now + late)
        audit.look(controller.update(now + late, robot.home, np.zeros(6)).position, 0.01)
    assert arbiter.counts["accepted"] > 60 and audit.worst["velocity"] > 0.1, "it never moved"
    assert (audit.violations == 0) == kept, audit.worst
