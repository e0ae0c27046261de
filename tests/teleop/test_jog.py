"""Motions of wishes: they start where the command is, keep the limits, and end at rest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from udvla_ros.errors import ConfigError
from udvla_ros.motion.arbiter import Arbiter
from udvla_ros.motion.modes import Mode
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.motion.stitch import StitchOptions
from udvla_ros.motion.trajectory import Trajectory
from udvla_ros.teleop.jog import KEPT, POINT, Change, Jogger, Speeds
from udvla_ros.teleop.wish import REST, Wish

ROBOTS = {name: RobotDescription.load(name) for name in ("ur5e_sim", "ur5e", "panda", "so101")}
JOGGERS = {name: Jogger(robot) for name, robot in ROBOTS.items()}
unit = st.floats(-1.0, 1.0)


@st.composite
def situations(draw):
    """A robot, a commanded state within its limits, and a wish of any kind, perhaps far too fast."""
    name = draw(st.sampled_from(sorted(ROBOTS)))
    robot = ROBOTS[name]
    limits, d = robot.limits, len(robot.joints)

    def vector(scale):
        return np.array([draw(unit) for _ in range(d)]) * scale

    middle, half = (limits.upper + limits.lower) / 2, (limits.upper - limits.lower) / 2
    q = middle + vector(half)
    qd = vector(limits.velocity) * draw(st.sampled_from([0.0, 0.3, 1.0]))
    kind = draw(st.sampled_from(["rest", "twist", "joints", "goal"]))
    if kind == "twist":
        wish = Wish(twist=np.array([draw(unit) for _ in range(6)]) * 3.0, frame=draw(st.sampled_from(["base", "tcp"])))
    elif kind == "joints":
        wish = Wish(joints=vector(5.0))
    elif kind == "goal":
        wish = Wish(goal=np.clip(middle + vector(half), limits.lower, limits.upper), goal_velocity=vector(2.0))
    else:
        wish = REST
    return name, q, qd, wish


@settings(max_examples=150)
@given(situations())
def test_a_motion_never_asks_beyond_the_limits_and_ends_at_rest(situation):
    name, q, qd, wish = situation
    robot, limits = ROBOTS[name], ROBOTS[name].limits
    motion = JOGGERS[name].motion(q, qd, wish)
    assert np.isfinite(motion.q).all() and np.isfinite(motion.qd).all()
    assert motion.times[0] > 0 and np.diff(motion.times) == pytest.approx(POINT)
    assert (motion.q >= np.minimum(limits.lower, q) - 1e-9).all()
    assert (motion.q <= np.maximum(limits.upper, q) + 1e-9).all()
    assert (np.abs(motion.qd) <= limits.velocity + 1e-9).all()
    assert not motion.qd[-1].any()
    assert (np.abs(motion.wanted) <= limits.velocity).all()
    tcp = robot.kinematics.jacobian(q)[:3] @ motion.wanted
    assert np.linalg.norm(tcp) <= limits.tcp_speed + 1e-9


@settings(max_examples=60)
@given(situations())
def test_from_rest_it_stays_in_the_workspace_or_comes_back(situation):
    name, q, _, wish = situation
    robot = ROBOTS[name]
    motion = JOGGERS[name].motion(q, np.zeros_like(q), wish)

    def depth(points):
        return robot.workspace.depth(robot.kinematics.positions(points)).max()

    assert depth(motion.q) <= max(0.0, depth(q[None])) + 1e-6


@settings(max_examples=60)
@given(offset=st.lists(unit, min_size=6, max_size=6), slope=st.lists(unit, min_size=6, max_size=6))
def test_a_change_keeps_acceleration_and_jerk_and_its_parts_agree(offset, slope):
    robot = ROBOTS["ur5e"]
    limits = robot.limits
    offset, slope = np.array(offset), np.array(slope) * limits.acceleration
    change = Change(offset, slope, limits.acceleration, limits.jerk)
    t = np.linspace(0.0, change.duration, 401)
    distance, velocity, acceleration = (np.array(part) for part in zip(*(change.at(s) for s in t), strict=True))
    np.testing.assert_allclose(velocity[0], offset, atol=1e-9)
    np.testing.assert_allclose(acceleration[0], slope, atol=1e-9)
    np.testing.assert_allclose(velocity[-1], 0.0, atol=1e-9)
    np.testing.assert_allclose(np.gradient(distance, t, axis=0)[1:-1], velocity[1:-1], atol=2e-3)
    np.testing.assert_allclose(np.gradient(velocity, t, axis=0)[1:-1], acceleration[1:-1], atol=5e-2)
    assert (np.abs(acceleration) <= np.maximum(limits.acceleration, np.abs(slope)) * 1.07).all()
    assert (np.abs(np.diff(acceleration, axis=0) / np.diff(t)[:, None]) <= limits.jerk * 1.01).all()


class Arm:
    """An arbiter in whose hands the arm does what it is told, and an operator at 50 Hz."""

    def __init__(self, name: str, period: float = 0.02, late: float = 0.003) -> None:
        self.robot, self.jogger = ROBOTS[name], JOGGERS[name]
        self.arbiter = Arbiter(self.robot, stitch=StitchOptions(blend=0.2, frozen=0.1))
        self.period, self.late, self.t = period, late, 1.0
        self._last = None
        self._observe(self.robot.home, np.zeros(len(self.robot.joints)))

    def _observe(self, q, qd) -> None:
        hand = self.robot.gripper
        self.arbiter.observe(self.robot.command_names, [*q, hand.open], [*qd, 0.0], self.t)

    def jog(self, wish: Wish, seconds: float) -> np.ndarray:
        """Jog and return (time, q, qd) rows at 100 Hz."""
        rows = []
        for _ in range(round(seconds / self.period)):
            state = self.arbiter.state(self.t)
            self._observe(state.q, state.qd)
            motion = self.jogger.motion(state.q, state.qd, wish, state.qdd)
            request = Trajectory(self.robot.joints, motion.times, motion.q, motion.qd, self.t)
            verdict = self.arbiter.offer("teleop", request, self.t + self.late)
            assert verdict.accepted, verdict.reason
            assert not verdict.interventions, verdict.interventions
            for k in range(2):
                at = self.t + self.late + k * self.period / 2
                rows.append([at, *self.arbiter.state(at).q, *self.arbiter.state(at).qd])
            self.t += self.period
        return np.array(rows)


@pytest.mark.parametrize("name", ["ur5e_sim", "ur5e"])
def test_the_arbiter_follows_a_jog_without_having_to_mend_it(name):
    arm = Arm(name)
    rows = arm.jog(Wish(twist=np.array([0.0, 0.1, 0, 0, 0, 0])), 1.5)
    kinematics, d = arm.robot.kinematics, len(arm.robot.joints)
    assert arm.arbiter.mode is Mode.TELEOP
    poses = [kinematics.forward(q) for q in rows[:, 1 : 1 + d]]
    way = np.array([pose[:3, 3] - poses[0][:3, 3] for pose in poses])
    assert np.abs(way[:, [0, 2]]).max() < 1e-3, "it left the line"
    turned = [np.arccos(np.clip((np.trace(p[:3, :3] @ poses[0][:3, :3].T) - 1) / 2, -1, 1)) for p in poses]
    assert max(turned) < 5e-3
    speed = kinematics.jacobian(rows[-1, 1 : 1 + d])[:3] @ rows[-1, 1 + d :]
    np.testing.assert_allclose(speed, [0.0, 0.1, 0.0], atol=2e-3)
    arm.jog(REST, 0.6)
    assert np.abs(arm.arbiter.state(arm.t).qd).max() < 1e-9


def test_a_hand_that_vanishes_leaves_an_arm_that_comes_to_rest():
    arm = Arm("ur5e_sim")
    arm.jog(Wish(joints=np.array([0.5, 0, 0, 0, 0, 0])), 0.5)
    gone = arm.t
    while not arm.arbiter.plan.at_rest(arm.t):
        arm.t += 0.01
        arm.arbiter.tick(arm.t)
    assert arm.t - gone < 0.4
    while arm.t < gone + 0.6:
        arm.t += 0.01
        arm.arbiter.tick(arm.t)
    assert arm.arbiter.mode is Mode.HOLD


def test_a_goal_that_moves_is_followed():
    arm = Arm("ur5e_sim")
    q0, begin, worst = arm.robot.home.copy(), arm.t, 0.0
    while arm.t < begin + 4.0:
        s = arm.t - begin
        sway = np.array([0.2, -0.1, 0.15, 0, 0.1, 0.3])
        wish = Wish(goal=q0 + sway * np.sin(s) ** 2, goal_velocity=sway * np.sin(2 * s))
        arm.jog(wish, 0.02)
        worst = max(worst, np.abs(arm.arbiter.state(arm.t).q - (q0 + sway * np.sin(arm.t - begin) ** 2)).max())
    assert worst < 0.02


def test_at_a_bound_it_is_said_which_joint_and_the_arm_creeps_up_to_it():
    robot, jogger = ROBOTS["ur5e_sim"], JOGGERS["ur5e_sim"]
    q = robot.home.copy()
    q[4] = robot.limits.upper[4] - 0.001
    motion = jogger.motion(q, np.zeros(6), Wish(joints=np.array([0, 0, 0, 0, 0.5, 0])))
    assert motion.note == "wrist_2_joint is at its limit"
    np.testing.assert_allclose(motion.q, np.tile(q, (len(motion.q), 1)), atol=KEPT)
    back = jogger.motion(q, np.zeros(6), Wish(joints=np.array([0, 0, 0, 0, -0.5, 0])))
    assert not back.note and back.q[-1, 4] < q[4] - 0.05


def test_speeds_must_be_speeds():
    with pytest.raises(ConfigError, match="above 0"):
        Speeds(linear=0.0)
