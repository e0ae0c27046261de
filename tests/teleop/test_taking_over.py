"""Takeovers in simulated time, where no machine is late: what the arithmetic alone needs, and that nothing jumps."""

from __future__ import annotations

import numpy as np
import pytest

from udvla_ros.motion.arbiter import Arbiter
from udvla_ros.motion.modes import Mode
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.motion.stitch import StitchOptions
from udvla_ros.motion.trajectory import Trajectory
from udvla_ros.proving.takeovers import ALLOWED_MS, FOLLOWS, strain
from udvla_ros.teleop.ahead import DELAY, Ahead, Kinetics
from udvla_ros.teleop.jog import Jogger
from udvla_ros.teleop.wish import Wish

DT, STEPS = 0.1, 8
TRANSPORT, TICK = 0.004, 0.01  # s


def take_over(name: str, rng: np.random.Generator) -> tuple[float, dict[str, float]]:
    """Return ms until the command follows, and the strain, of one touch in the middle of a policy's chunk."""
    robot = RobotDescription.load(name)
    arbiter, jogger = Arbiter(robot, stitch=StitchOptions(frozen=0.1, lead=0.02)), Jogger(robot)
    hand = robot.gripper.open

    def observe(now: float) -> None:
        state = arbiter.state(now)
        q, qd = (robot.home, np.zeros_like(robot.home)) if state is None else (state.q, state.qd)
        arbiter.observe(robot.command_names, [*q, hand], [*qd, 0.0], now)

    observe(0.0)
    assert arbiter.engage("policy", 0.0).accepted
    times = DT * np.arange(1, STEPS + 1)
    sway = 0.12 * rng.uniform(-1, 1, len(robot.joints)) * (1 - np.cos(np.pi * times[:, None] / times[-1])) / 2
    chunk = Trajectory(robot.joints, times, robot.home + sway, stamp=0.0)
    assert arbiter.offer("policy", chunk, 0.0).accepted
    touch = TICK * rng.integers(15, 60)
    phase = rng.uniform(0, TICK)
    old = arbiter.plan
    wish = Wish(joints=rng.uniform(-0.4, 0.4, len(robot.joints)))
    samples, asked, mail, ahead = [], None, [], Ahead()
    for k in range(60):
        now = touch - 0.1 + TICK * k + phase
        while mail and mail[0][0] <= now:
            due, request = mail.pop(0)
            verdict = arbiter.offer("teleop", request, due)
            assert verdict.accepted, verdict.reason
        observe(now)
        arbiter.tick(now)
        state = arbiter.state(now)
        samples.append((now, state.q, state.qd))
        if now >= touch and k % 2 == 0:
            start = ahead.start(now, Kinetics(*state))
            motion = jogger.motion(start.q, start.qd, wish, start.qdd)
            ahead.sent(now, start, motion)
            asked = (now, motion.wanted) if asked is None else asked
            mail.append((now + TRANSPORT, Trajectory(robot.joints, motion.times + DELAY, motion.q, motion.qd, now)))
    assert arbiter.mode is Mode.TELEOP
    begin, wanted = asked
    for now, _, qd in samples:
        before = old.state(now).qd
        share = (qd - before) @ (wanted - before) / ((wanted - before) @ (wanted - before))
        if now > begin and share >= FOLLOWS:
            times, speeds = np.array([t for t, _, _ in samples]), np.array([v for _, _, v in samples])
            return 1e3 * (now - begin), strain(times, speeds, robot.limits)
    pytest.fail("the command never followed")


@pytest.mark.parametrize(
    ("name", "percentile", "allowed"), [("ur5e_sim", 95, ALLOWED_MS), ("ur5e", 50, 2 * ALLOWED_MS)]
)
def test_the_command_follows_within_the_time_allowed_and_within_the_limits(name, percentile, allowed):
    """An arm with a sixth of the acceleration and a 25th of the jerk answers later; neither may jump."""
    rng = np.random.default_rng(0)
    found = [take_over(name, rng) for _ in range(30)]
    assert np.percentile([ms for ms, _ in found], percentile) <= allowed
    for _, shares in found:
        assert max(shares.values()) <= 1.0
