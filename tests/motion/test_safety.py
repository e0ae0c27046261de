from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from motion.rig import Rig, boxed, examples

from udvla_ros.motion.envelope import Envelope
from udvla_ros.motion.errors import Refused
from udvla_ros.motion.path import PlanPath
from udvla_ros.motion.plan import Plan, State
from udvla_ros.motion.safety import SafetyFilter
from udvla_ros.motion.stitch import Joining, StitchOptions
from udvla_ros.motion.trajectory import Trajectory

NOW = 50.0
seeds = st.integers(0, 2**32 - 1)


def plan_to(robot, targets: np.ndarray, dt: float = 0.1, in_force: Plan | None = None, now: float = NOW, gripper=0.0):
    """Return the outcome of one request through joint targets [K, d]."""
    safety = SafetyFilter(robot)
    in_force = in_force or Plan.rest(robot.home, 0.0, now)
    positions = np.column_stack([targets, np.full(len(targets), gripper)])
    message = Trajectory(robot.command_names, dt * np.arange(1, len(targets) + 1), positions, None, now)
    request = safety.check(message, in_force.state(now), now)
    joining = Joining(request, in_force, now, lambda t: None, safety.limits, StitchOptions())
    return safety.plan(joining, in_force, now)


def row(robot, joint: int, *angles: float) -> np.ndarray:
    targets = np.repeat(robot.home[None], len(angles), axis=0)
    targets[:, joint] += angles
    return targets


@pytest.fixture(scope="module")
def free(ur5e):
    """The arm without walls about it."""
    return boxed(ur5e, [[-2, -2, -2], [2, 2, 2]])


def refused(robot, message: Trajectory) -> Refused:
    command = State(robot.home, np.zeros(6), np.zeros(6))
    with pytest.raises(Refused) as refusal:
        SafetyFilter(robot).check(message, command, NOW)
    assert "\n" not in str(refusal.value)
    return refusal.value


def message(robot, **changes) -> Trajectory:
    positions = np.append(robot.home, 0.0) + np.zeros((3, 7))
    good = Trajectory(robot.command_names, np.array([0.1, 0.2, 0.3]), positions, None, NOW)
    return replace(good, **changes)


def test_a_good_message_passes_in_any_joint_order(ur5e):
    command = State(ur5e.home, np.zeros(6), np.zeros(6))
    order = [6, 3, 0, 5, 1, 4, 2]
    good = message(ur5e)
    shuffled = replace(good, names=[good.names[i] for i in order], positions=good.positions[:, order])
    for each in (good, shuffled):
        request = SafetyFilter(ur5e).check(each, command, NOW)
        np.testing.assert_allclose(request.q, good.positions[:, :6])
        np.testing.assert_allclose(request.gripper, 0.0)


def spoiled(value: float) -> np.ndarray:
    positions = np.zeros((3, 7))
    positions[1, 4] = value
    return positions


@pytest.mark.parametrize(
    ("kind", "change", "says"),
    [
        ("empty", {"times": [], "positions": []}, "no points"),
        ("malformed", {"positions": np.zeros((2, 7))}, "positions"),
        ("malformed", {"positions": "no"}, "numbers"),
        ("malformed", {"positions": np.zeros(7)}, "dimensions"),
        ("malformed", {"velocities": np.zeros((3, 2))}, "velocities"),
        ("non_finite", {"positions": spoiled(np.nan)}, "wrist_2_joint at point 1"),
        ("non_finite", {"positions": spoiled(np.inf)}, "wrist_2_joint at point 1"),
        ("non_finite", {"times": [0.1, np.nan, 0.3]}, "time"),
        ("non_finite", {"stamp": np.nan}, "stamp"),
        ("times", {"times": [0.0, 0.1, 0.2]}, "above 0"),
        ("times", {"times": [0.1, 0.1, 0.2]}, "increase"),
        ("times", {"times": [0.3, 0.2, 0.1]}, "increase"),
        ("too_long", {"times": [0.1, 0.2, 300.0]}, "300"),
        ("stale", {"stamp": NOW - 2.5}, "2.50 s old"),
        ("elapsed", {"stamp": NOW - 0.5}, "due before"),
        ("future", {"stamp": NOW + 0.2}, "0.200 s ahead"),
        ("out_of_limits", {"velocities": np.full((3, 7), 50.0)}, "velocity"),
    ],
)
def test_what_is_malformed_or_late_is_refused_by_class(ur5e, kind, change, says):
    refusal = refused(ur5e, message(ur5e, **change))
    assert refusal.kind == kind and says in str(refusal)


def test_joints_are_refused_by_name(ur5e):
    names, positions = list(ur5e.command_names), np.append(ur5e.home, 0.0) + np.zeros((3, 7))
    assert refused(ur5e, message(ur5e, names=names[1:], positions=positions[:, 1:])).kind == "missing_joint"
    assert refused(ur5e, message(ur5e, names=[names[0], *names[:6]])).kind == "duplicate_joint"
    unknown = refused(ur5e, message(ur5e, names=["left_wheel", *names[1:]]))
    assert unknown.kind == "unknown_joint" and "left_wheel" in str(unknown)


def test_jumps_far_targets_and_gripper_positions_are_refused(ur5e):
    def moved(joint: int, by: float) -> np.ndarray:
        positions = np.append(ur5e.home, 0.0) + np.zeros((3, 7))
        positions[:, joint] += by
        return positions

    jump = refused(ur5e, message(ur5e, positions=moved(0, 0.8)))
    assert jump.kind == "jump" and "shoulder_pan_joint" in str(jump)
    assert refused(ur5e, message(ur5e, positions=moved(2, 2.0))).kind == "out_of_limits"
    assert refused(ur5e, message(ur5e, positions=moved(6, 1.5))).kind == "out_of_limits"
    SafetyFilter(ur5e).check(
        message(ur5e, positions=moved(0, 0.8), times=np.array([2.0, 2.1, 2.2])),
        State(ur5e.home, *[np.zeros(6)] * 2),
        NOW,
    )  # far, but with time to get there


def test_a_request_that_is_too_fast_is_slowed_on_its_path(free):
    """Rest to rest along a straight joint line: whatever the time-scaling, the line is not left."""
    goal = np.array([0.25, -0.2, 0.15, 0.1, -0.2, 0.05])
    outcome = plan_to(free, free.home + goal * np.array([[0.5], [1.0]]), dt=0.06)
    assert outcome.interventions == ("slowed",)
    t = np.linspace(0, outcome.plan.rest_time, 200)
    q = outcome.plan.sample(t)[0]
    along = (q - free.home) @ goal / (goal @ goal)
    np.testing.assert_allclose(q, free.home + along[:, None] * goal, atol=1e-6)
    assert (np.diff(along) >= -1e-4).all() and along[-1] == pytest.approx(1.0)
    effort = SafetyFilter(free).envelope(Plan.rest(free.home, 0.0, NOW), NOW).effort(outcome.plan).max(axis=1)
    assert (effort <= 1.0).all() and effort.max() > 0.7, "slowed further than needed"


def test_all_joints_halt_together_on_the_way_to_a_bound(free):
    targets = row(free, 2, *np.linspace(0.15, 1.2, 8))  # the elbow's soft bound is 1.157 rad away
    targets[:, 0] += np.linspace(0.05, 0.4, 8)
    outcome = plan_to(free, targets)
    assert "position" in outcome.interventions
    q = outcome.plan.sample(np.linspace(0, outcome.plan.rest_time, 300))[0]
    assert q[:, 2].max() <= free.limits.upper[2]
    assert q[-1, 2] > free.limits.upper[2] - 0.05, "halted long before the bound"
    moved = q[-1] - free.home
    assert moved[0] / moved[2] == pytest.approx(1 / 3, abs=0.01), "the pan went on without the elbow"


@pytest.mark.parametrize(
    ("box", "forbidden"),
    [([[-2, -2, 0.15], [2, 2, 2]], []), ([[-2, -2, -2], [2, 2, 2]], [[[0.4, -0.1, 0.0], [0.6, 0.1, 0.13]]])],
)
def test_the_tcp_halts_before_a_wall_and_may_come_back(ur5e, box, forbidden):
    robot = boxed(ur5e, box, forbidden)
    pose, q, targets = robot.kinematics.forward(robot.home), robot.home, []
    for _ in range(8):
        pose[2, 3] -= 0.015
        q = robot.kinematics.inverse(pose, q)
        targets.append(q)
    outcome = plan_to(robot, np.array(targets))
    assert "workspace" in outcome.interventions
    tcp = robot.kinematics.positions(outcome.plan.halves[1])
    assert robot.workspace.depth(tcp).max() <= 1e-6
    wall = 0.15 if not forbidden else 0.13
    assert wall - 1e-6 <= tcp[-1, 2] < wall + 0.015
    later = outcome.plan.end + 0.1
    again = plan_to(robot, np.array(targets[-2:]), in_force=outcome.plan, now=later)
    assert "workspace" in again.interventions
    assert np.abs(again.plan.q[-1] - outcome.plan.q[-1]).max() < 0.02
    back = plan_to(robot, np.array(targets[:2][::-1]), in_force=outcome.plan, now=later)
    assert "workspace" not in back.interventions and np.abs(back.plan.q[-1] - targets[0]).max() < 1e-6


def test_an_arm_found_outside_may_only_come_back(ur5e):
    tcp = ur5e.kinematics.forward(ur5e.home)[:3, 3]
    robot = boxed(ur5e, [[-2, -2, tcp[2] + 0.05], [2, 2, 2]])  # it is 5 cm below the floor
    pose = robot.kinematics.forward(robot.home)
    for step, moves in ((-0.03, False), (0.03, True)):
        pose[2, 3] = tcp[2] + step
        q = robot.kinematics.inverse(pose, robot.home)
        plan = plan_to(robot, np.array([q])).plan
        assert (np.abs(plan.q[-1] - q).max() < 1e-6) == moves
        assert robot.kinematics.positions(plan.halves[1])[:, 2].min() > tcp[2] - 1e-6


def test_tcp_speed_is_kept(ur5e):
    robot = replace(ur5e, limits=replace(ur5e.limits, tcp_speed=0.2))
    outcome = plan_to(robot, row(robot, 0, *np.linspace(0.08, 0.4, 5)))  # asks for some 0.4 m/s
    assert outcome.interventions == ("slowed",)
    times, q = outcome.plan.halves
    speed = np.linalg.norm(np.diff(robot.kinematics.positions(q), axis=0), axis=1) / np.diff(times)
    assert 0.15 < speed.max() <= 0.2 + 1e-6


def test_speed_scales_the_velocities(free):
    safety, slow = SafetyFilter(free), SafetyFilter(free, speed=0.1)
    np.testing.assert_allclose(slow.limits.velocity, 0.1 * safety.limits.velocity)
    assert slow.limits.tcp_speed == pytest.approx(0.1 * free.limits.tcp_speed)
    np.testing.assert_allclose(slow.limits.acceleration, safety.limits.acceleration)


@examples(60)
@given(seeds, st.floats(0.0, 1.0))
def test_the_brake_stops_within_limits_on_the_way_of_the_plan(free, seed, when):
    rng = np.random.default_rng(seed)
    targets = free.home + np.cumsum(rng.normal(size=6) * 0.12 + rng.normal(size=(6, 6)) * 0.05, axis=0)
    targets = np.clip(targets, free.limits.lower, free.limits.upper)
    plan = plan_to(free, targets).plan
    now = NOW + when * plan.rest_time
    safety = SafetyFilter(free)
    brake = safety.brake(plan, now)
    if brake is not plan:
        assert not safety.envelope(plan, now, full_speed=True).violations(brake)
    assert brake.end <= plan.end + 0.03
    path = plan.sample(np.linspace(0.0, plan.rest_time, 3000))[0]
    stop = brake.sample(np.linspace(now - brake.start, brake.rest_time, 20))[0]
    off = [np.abs(path - q).max(axis=1).min() for q in stop]
    assert max(off) < 2e-3, "the brake left the way that was cleared"


def test_the_brake_from_a_usual_speed_takes_a_tenth_of_a_second(free):
    plan = plan_to(free, row(free, 0, *np.linspace(0.06, 0.48, 8))).plan
    brake = SafetyFilter(free).brake(plan, NOW + 0.4)
    assert brake.rest_time < 0.16
    assert brake.state(brake.end).q[0] - plan.state(NOW + 0.4).q[0] < 0.06


def test_a_plan_that_fails_verification_never_leaves(free, monkeypatch):
    monkeypatch.setattr(Envelope, "violations", lambda *args, **kwargs: {"velocity": 2.0})
    outcome = plan_to(free, row(free, 0, 0.02))
    assert outcome.interventions == ("braked",)
    assert not outcome.plan.qd.any()


def test_verification_finds_each_kind_of_violation(free):
    safety, rest = SafetyFilter(free), Plan.rest(free.home, 0.0, NOW)
    good = plan_to(free, row(free, 0, *np.linspace(0.06, 0.48, 8))).plan
    envelope = safety.envelope(rest, NOW)
    assert not envelope.violations(good)

    def spoil(**changes):
        values = {"times": good.times, "q": good.q, "qd": good.qd, "qdd": good.qdd} | changes
        return set(envelope.violations(Plan(NOW, **values, gripper=good.gripper)))

    assert spoil(times=good.times / 8) >= {"velocity", "acceleration", "jerk", "tcp_speed"}
    effort = envelope.effort(good).max(axis=1)
    for part, name in enumerate(("velocity", "acceleration", "jerk")):
        for margin, caught in ((0.99, False), (1.01, True)):  # played so fast that it takes this part of a limit
            faster = (margin / effort[part]) ** (1 / (part + 1))
            quick = spoil(times=good.times / faster, qd=good.qd * faster, qdd=good.qdd * faster**2)
            assert (name in quick) == caught
    bent = good.q.copy()
    bent[10, 0] += 1e-3
    assert "jerk" in spoil(q=bent)
    assert "start" in spoil(q=good.q + 0.01)
    assert "end" in spoil(qd=good.qd + 0.01)
    assert "position" in spoil(q=good.q + 2.0 * np.eye(6)[2])
    lost = good.q.copy()
    lost[5] = np.nan
    assert {"position", "velocity", "jerk", "workspace"} <= spoil(q=lost), "what is not a number is no plan"
    walls = boxed(free, [[-2, -2, 0.3], [2, 2, 2]])
    strict = Envelope.around(rest.state(NOW), walls.limits, walls.workspace, walls.kinematics)
    raised = replace(strict, allowed=np.zeros(1))
    assert "workspace" in raised.violations(good)


def test_gripper_moves_at_its_own_rate_beside_a_resting_arm(free):
    plan = plan_to(free, row(free, 0, 0.0, 0.0), gripper=0.8).plan
    assert plan.rest_time < 0.3 and plan.gripper[-1] == pytest.approx(0.8)
    assert plan.end - plan.start > 0.8 / free.gripper.max_velocity - 0.02


def test_a_path_keeps_the_rest_of_the_plan_in_force(free):
    plan = plan_to(free, row(free, 0, *np.linspace(0.06, 0.48, 8))).plan
    path = PlanPath(plan, NOW + 0.3)
    np.testing.assert_allclose(path.evaluate(np.array([0.1]))[0][0], plan.state(NOW + 0.4).q, atol=1e-12)
    assert path.end == pytest.approx(plan.rest_time - 0.3)


def test_robots_of_other_sizes_are_filtered_too(panda):
    rig = Rig(panda)
    rig.act("engage", "policy")
    rng = np.random.default_rng(0)
    for _ in range(6):
        q = rig.q + np.cumsum(rng.normal(size=7) * 0.04 + rng.normal(size=(8, 7)) * 0.02, axis=0)
        assert rig.offer("policy", rig.chunk(q, gripper=0.5)).accepted
        rig.wait(0.33)
    rig.settle()
    rig.judge()
    rig.judge_rest()


def test_the_gripper_still_closes_where_the_arm_is_halted(ur5e):
    robot = boxed(ur5e, [[-2, -2, 0.15], [2, 2, 2]])
    pose = robot.kinematics.forward(robot.home)
    pose[2, 3] = 0.10
    below = robot.kinematics.inverse(pose, robot.home)
    plan = plan_to(robot, np.stack([robot.home, below, below])).plan
    held = plan_to(robot, np.repeat(below[None], 4, axis=0), in_force=plan, now=plan.end + 0.1, gripper=0.8)
    assert "workspace" in held.interventions
    assert robot.kinematics.positions(held.plan.halves[1])[:, 2].min() >= 0.15 - 1e-6
    assert held.plan.gripper[-1] == pytest.approx(0.8)


def test_a_message_without_the_gripper_leaves_it_to_finish(free):
    closing = plan_to(free, row(free, 0, 0.01, 0.02), gripper=0.8).plan
    safety, now = SafetyFilter(free), NOW + 0.1
    arm = Trajectory(free.joints, np.array([0.1, 0.2]), row(free, 0, 0.02, 0.03), None, now)
    request = safety.check(arm, closing.state(now), now)
    joining = Joining(request, closing, now, lambda t: None, safety.limits, StitchOptions())
    plan = safety.plan(joining, closing, now).plan
    assert 0.0 < plan.gripper[0] < 0.8 and plan.gripper[-1] == pytest.approx(0.8)
