from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from motion.rig import Rig, boxed, examples

from udvla_ros.errors import ConfigError
from udvla_ros.motion import quintic
from udvla_ros.motion.admission import Request
from udvla_ros.motion.plan import State
from udvla_ros.motion.spline import node_accelerations, node_velocities, smooth, spline, stretched
from udvla_ros.motion.stitch import StitchOptions, ensembled, gentle, receding


def walk(robot, rng, start: np.ndarray, count: int = 8, step: float = 0.03, turn: float = 0.4) -> np.ndarray:
    """Return joint targets [K, d] of a TCP walk of ``step`` m per point whose direction turns."""
    pose, q, found = robot.kinematics.forward(start), start, []
    away = robot.kinematics.forward(robot.home)[:3, 3] - pose[:3, 3]
    heading = rng.normal(size=3) + 20.0 * away
    for _ in range(count):
        heading = heading / np.linalg.norm(heading) + turn * rng.normal(size=3)
        pose[:3, 3] += step * heading / np.linalg.norm(heading)
        q = robot.kinematics.inverse(pose, q)
        found.append(q)
    return np.array(found)


def errors_mm(rig: Rig, targets: np.ndarray, stamp: float, dt: float = 0.1) -> np.ndarray:
    due = stamp + dt * np.arange(1, len(targets) + 1)
    reached = np.stack([rig.arbiter.plan.state(t).q for t in due])
    forward = rig.robot.kinematics.positions
    return 1000 * np.linalg.norm(forward(reached) - forward(targets), axis=1)


def test_node_velocities_solve_the_smooth_cubic_spline():
    from scipy.interpolate import CubicSpline

    rng = np.random.default_rng(0)
    times, q = np.cumsum(rng.uniform(0.03, 0.2, 9)), rng.normal(size=(9, 4))
    first, last = rng.normal(size=4), rng.normal(size=4)
    reference = CubicSpline(times, q, bc_type=((1, first), (1, last)))
    v = node_velocities(times, q, first, last)
    np.testing.assert_allclose(v, reference(times, 1), atol=1e-9)
    np.testing.assert_allclose(node_accelerations(times, q, v), reference(times, 2), atol=1e-7)


@pytest.mark.parametrize("spacing", [np.full(7, 0.1), np.full(7, 0.0333), np.array([0.03, 0.1, 0.1, 0.1])])
def test_evenly_spaced_nodes_are_solved_alike(spacing):
    rng, times = np.random.default_rng(3), np.concatenate([[-0.3], -0.3 + np.cumsum(spacing)])
    q, first, last = rng.normal(size=(len(times), 6)), rng.normal(size=6), rng.normal(size=6)
    v, a = smooth(times, q, first, last)
    np.testing.assert_allclose(v, node_velocities(times, q, first, last), atol=1e-6)
    np.testing.assert_allclose(a, node_accelerations(times, q, v), atol=1e-4)


def test_segments_too_fast_for_a_joint_are_given_more_time(ur5e):
    q = np.zeros((3, 6))
    q[1, 2], q[2, 2] = 1.0, 1.01
    times = stretched(np.array([0.0, 0.05, 0.15]), q, ur5e.limits)
    assert times[1] == pytest.approx(1.0 / (0.8 * 3.14))
    assert times[2] - times[1] == pytest.approx(0.1)


@pytest.mark.parametrize(("step", "median", "worst"), [(0.02, 0.1, 1.0), (0.03, 4.0, 10.0)])
def test_a_chunk_from_rest_is_met_at_its_due_times(ur5e, step, median, worst):
    """Full 3 cm steps from standstill need more than the acceleration limits: up to 25 ms late, still on the way."""
    robot = boxed(ur5e, [[-2, -2, -2], [2, 2, 2]])
    rng, met = np.random.default_rng(1), []
    for _ in range(12):
        rig = Rig(robot)
        rig.act("engage", "policy")
        targets = walk(robot, rng, robot.home, step=step, turn=0.15)
        assert rig.offer("policy", rig.chunk(targets)).accepted
        met.append(errors_mm(rig, targets, rig.now).max())
    assert np.median(met) < median
    assert np.max(met) < worst


@pytest.mark.parametrize("latency", [0.0, 0.1, 0.3])
def test_a_chunk_that_agrees_with_the_motion_is_met_after_the_blend_however_late_it_comes(ur5e, latency):
    """Consecutive chunks of one smooth motion, each computed from the command at its stamp."""
    rng = np.random.default_rng(2)
    line = walk(ur5e, rng, ur5e.home, count=12, step=0.02, turn=0.05)
    rig = Rig(ur5e)
    rig.act("engage", "policy")
    rig.offer("policy", rig.chunk(line[:8]))
    rig.wait(0.4)
    stamp = rig.now
    rig.wait(latency)
    assert rig.offer("policy", rig.chunk(line[4:12], age=latency)).accepted
    after = int(np.ceil((latency + 0.1) / 0.1 - 1e-6))
    assert errors_mm(rig, line[4:12], stamp)[after:].max() < 2.5


stitchings = st.builds(
    StitchOptions,
    blend=st.sampled_from([0.0, 0.1, 0.25, 0.6]),
    frozen=st.sampled_from([0.0, 0.0, 0.1, 0.3]),
    ensemble=st.sampled_from([None, None, 0.01, 0.5]),
    horizon=st.sampled_from([None, None, 0.25, 0.5]),
    tail=st.sampled_from([0.0, 0.0, 0.2]),
    entry=st.sampled_from(["progress", "time"]),
)


@examples(60)
@given(st.integers(0, 2**32 - 1), st.one_of(st.just(StitchOptions()), stitchings))
def test_position_and_velocity_go_on_at_every_switch(ur5e, seed, options):
    """Whatever the options, the latencies and where the chunks lead; acceleration as well."""
    rng = np.random.default_rng(seed)
    rig = Rig(ur5e, now=1000.0 + float(rng.uniform(0, 0.02)), stitch=options)
    rig.act("engage", "policy")
    for _ in range(int(rng.integers(2, 5))):
        seen = walk(ur5e, rng, rig.q)
        latency = float(rng.choice([0.0, rng.uniform(0, 0.5)]))
        rig.wait(latency)
        before, plan = rig.arbiter.plan.state(rig.now), rig.arbiter.plan
        verdict = rig.offer("policy", rig.chunk(seen, age=latency))
        if not verdict.accepted:  # by then the chunk leads too far away
            assert verdict.kind == "jump" and verdict.plan is plan
            continue
        assert verdict.plan is not plan
        for old, new in zip(before, verdict.plan.state(rig.now), strict=True):
            np.testing.assert_allclose(new, old, atol=1e-6)
        rig.wait(float(rng.uniform(0.0, 0.9)))
    rig.settle()
    rig.judge()
    rig.judge_rest()


def test_elapsed_points_are_dropped_by_time(ur5e):
    """The same chunk, offered late: the arm goes to the points still due, never back to those elapsed."""
    rig = Rig(ur5e)
    rig.act("engage", "policy")
    targets = ur5e.home + np.linspace(0.02, 0.16, 8)[:, None] * [1, 0, 0, 0, 0, 0]
    rig.wait(0.35)
    assert rig.offer("policy", rig.chunk(targets, age=0.35)).accepted
    rig.settle()
    pan = rig.controller.written()[1][:, 0]
    assert (np.diff(pan) > -1e-4).all()
    assert pan[-1] == pytest.approx(targets[-1, 0], abs=1e-4)


def test_frozen_steps_play_the_plan_in_force(ur5e):
    rng = np.random.default_rng(4)
    rig = Rig(ur5e, stitch=StitchOptions(frozen=0.2))
    rig.act("engage", "policy")
    targets = walk(ur5e, rng, ur5e.home, step=0.02, turn=0.02)
    rig.offer("policy", rig.chunk(targets))
    rig.wait(0.2)
    old = rig.arbiter.plan
    later = np.concatenate([targets[2:4], targets[3] + np.arange(1, 7)[:, None] * (targets[3] - targets[2]) * 0.5])
    new = rig.offer("policy", rig.chunk(later)).plan
    frozen = rig.now + np.linspace(0.0, 0.15, 16)  # slowing for what follows sets in before it
    moved = rig.now + np.linspace(0.3, 0.5, 21)
    apart = [np.abs(np.stack([new.state(x).q - old.state(x).q for x in t])).max() for t in (frozen, moved)]
    assert apart[0] < 2e-3 and apart[1] > 5e-3


def test_a_bridge_is_as_long_as_what_it_brings_together_needs(ur5e):
    """A quintic from a difference of state to none keeps the share of the limits, and just does."""
    rng = np.random.default_rng(6)
    for scale in np.diag([0.05, 0.5, 3.0]):
        apart = tuple(size * rng.normal(size=(1, 6)) for size in scale)
        window = gentle(apart, ur5e.limits)
        parts = []
        for factor in (1.0, 0.8):
            knots = (np.vstack([x, np.zeros(6)]) for x in apart)
            c = quintic.coefficients(np.array([factor * window]), *knots)
            u = np.linspace(0.0, factor * window, 400)
            force = quintic.evaluate(c, np.zeros(400, int), u)[2]
            jerk = np.diff(force, axis=0) / (u[1] - u[0])
            parts.append(max((np.abs(force) / ur5e.limits.acceleration).max(), (np.abs(jerk) / ur5e.limits.jerk).max()))
        assert parts[0] < 0.51 or scale[2], "an acceleration itself does not get less by waiting"
        assert scale[2] or parts[1] > 0.55
    assert gentle(tuple(np.zeros((1, 6)) for _ in range(3)), ur5e.limits) == 0.0


def test_a_receding_horizon_follows_only_the_near_points(ur5e):
    times = 0.1 * np.arange(1, 9) - 0.25
    request = Request(-0.25, times, np.arange(8.0)[:, None] + np.zeros(6), None, np.linspace(0.0, 0.7, 8))
    near = receding(request, 0.4)
    np.testing.assert_allclose(near.times, times[:4])
    assert len(near.q) == len(near.gripper) == 4 and near.due == 2
    assert len(receding(request, 0.1).times) == 3, "the next point due is followed, however short the horizon"
    assert len(receding(request, 9.0).times) == 8

    rig = Rig(ur5e, stitch=StitchOptions(horizon=0.4))
    rig.act("engage", "policy")
    targets = ur5e.home + 0.02 * np.arange(1, 9)[:, None] * np.eye(6)[0]
    rig.offer("policy", rig.chunk(targets))
    rig.settle()
    np.testing.assert_allclose(rig.q, targets[3], atol=1e-6)
    for horizon in (0.0, -0.1):
        with pytest.raises(ConfigError, match="horizon"):
            StitchOptions(horizon=horizon)


def test_ensembling_averages_chunks_by_time_the_oldest_weighing_most():
    times = np.array([0.1, 0.2, 0.3])
    request = Request(0.0, times, np.full((3, 2), 1.0), None, None)
    older = [(9.9, np.array([10.0, 10.1, 10.2]), np.zeros((3, 2)))]
    out = ensembled(request, older, 10.0, exponent=0.5)
    share = np.exp(-0.5) / (1.0 + np.exp(-0.5))
    np.testing.assert_allclose(out.q[:2], share)
    np.testing.assert_allclose(out.q[2], 1.0)  # beyond the older chunk only the new one speaks
    np.testing.assert_allclose(ensembled(request, [], 10.0, 0.5).q, request.q)


def test_ensembling_in_the_arbiter_lies_between_the_chunks(ur5e):
    rig = Rig(ur5e, stitch=StitchOptions(ensemble=0.1))
    rig.act("engage", "policy")
    aside = np.array([1, 0, 0, 0, 0, 0])
    rig.offer("policy", rig.chunk(ur5e.home + np.linspace(0.01, 0.08, 8)[:, None] * aside))
    rig.wait(0.1)
    rig.offer("policy", rig.chunk(rig.q + np.zeros((8, 1)) * aside))
    end = rig.arbiter.plan.state(rig.now + 0.65).q[0] - ur5e.home[0]
    assert 0.02 < end < 0.06


def test_a_tail_runs_on_a_little_and_rests(ur5e):
    q = np.stack([ur5e.home + 0.02 * k for k in range(1, 5)])
    request = Request(0.0, 0.1 * np.arange(1, 5), q, None, None)
    zero = np.zeros(6)
    path = spline(request, (0.0, State(ur5e.home, zero, zero)), ur5e.limits, (0.0, 0.0), tail=0.2)
    end, speed, acceleration = path.evaluate(np.array([path.end]))
    np.testing.assert_allclose(end[0], q[-1] + 0.1 * 0.1, atol=1e-9)  # half the last speed, over half the tail
    assert np.abs(speed).max() < 1e-9 and np.abs(acceleration).max() < 1e-6
    at_last, _, _ = path.evaluate(np.array([0.4]))
    np.testing.assert_allclose(at_last[0], q[-1], atol=1e-9)


def test_an_arm_that_stood_misses_nothing_of_a_late_chunk(ur5e):
    """The first inference of a session takes long: its chunk is played from its first step, not jumped into."""
    rig = Rig(ur5e)
    rig.act("engage", "policy")
    targets = ur5e.home + np.linspace(0.02, 0.16, 8)[:, None] * np.eye(6)[0]
    rig.wait(1.2)  # longer than the whole chunk
    verdict = rig.offer("policy", rig.chunk(targets, age=1.2))
    assert verdict.accepted and not verdict.interventions
    assert errors_mm(rig, targets, rig.now).max() < 0.5


def late_chunk(rig, aside: np.ndarray, latency: float, **options):
    """Return the plan for a late chunk while the arm, already on its way along the pan joint, was slowed to a half."""
    pan = np.eye(6)[0]
    rig.act("engage", "policy")
    rig.offer("policy", rig.chunk(rig.q + 0.03 * np.arange(1, 9)[:, None] * pan))
    rig.wait(0.3)
    stamp_q = rig.q
    rig.offer("policy", rig.chunk(rig.q + 0.015 * np.arange(1, 9)[:, None] * pan))
    rig.wait(latency)
    return rig.offer("policy", rig.chunk(stamp_q + 0.03 * np.arange(1, 9)[:, None] * aside, age=latency)).plan


def test_a_late_chunk_is_entered_where_the_arm_has_come_to(ur5e):
    fastest = {}
    for entry in ("progress", "time"):
        rig = Rig(ur5e, stitch=StitchOptions(entry=entry))
        plan = late_chunk(rig, np.eye(6)[0], 0.3)
        fastest[entry] = np.abs(plan.qd[:, 0]).max()
        assert plan.q[-1, 0] == pytest.approx(rig.arbiter.past(rig.now - 0.3)[0].q[0] + 0.24, abs=1e-6)
    assert fastest["progress"] < 0.5 and fastest["time"] > 0.7, "catching up with the clock is a lurch"


def test_a_late_chunk_that_leads_elsewhere_is_entered_where_its_stamp_says(ur5e):
    plans = []
    for entry in ("progress", "time"):
        rig = Rig(ur5e, stitch=StitchOptions(entry=entry))
        plans.append(late_chunk(rig, np.eye(6)[4] * 0.5, 0.2))
    np.testing.assert_allclose(plans[0].rest_time, plans[1].rest_time, atol=0.021)


def test_entries_are_checked():
    with pytest.raises(ConfigError, match="entry 'guess'"):
        StitchOptions(entry="guess")
