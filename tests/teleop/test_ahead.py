"""Where a motion sets out: where the command will be, never where it was, and never far from it."""

from __future__ import annotations

import numpy as np
import pytest

from udvla_ros.motion.robot import RobotDescription
from udvla_ros.teleop.ahead import DELAY, LEASH, Ahead, Kinetics
from udvla_ros.teleop.jog import Jogger
from udvla_ros.teleop.wish import Wish

ROBOT = RobotDescription.load("ur5e_sim")
STILL = np.zeros(6)


def test_an_arm_at_rest_is_met_exactly_where_it_is():
    start = Ahead().start(5.0, Kinetics(ROBOT.home, STILL, STILL))
    assert (start.q == ROBOT.home).all() and not start.qd.any() and not start.qdd.any()


def test_a_moving_arm_is_met_where_it_will_be():
    qd, qdd = np.full(6, 0.4), np.full(6, -2.0)
    start = Ahead().start(5.0, Kinetics(ROBOT.home, qd, qdd))
    np.testing.assert_allclose(start.q, ROBOT.home + 0.4 * DELAY - DELAY**2)
    np.testing.assert_allclose(start.qd, 0.4 - 2.0 * DELAY)


def jogged(ahead: Ahead, seconds: float, follow: float) -> tuple[Kinetics, float]:
    """Jog a joint at 50 Hz with an arm that goes a part of the way; return the last start and the command's joint."""
    jogger, command, q = Jogger(ROBOT), ROBOT.home.copy(), ROBOT.home[0]
    for k in range(round(seconds / 0.02)):
        stamp = 5.0 + 0.02 * k
        start = ahead.start(stamp, Kinetics(command, STILL, STILL))
        motion = jogger.motion(start.q, start.qd, Wish(joints=np.array([0.5, 0, 0, 0, 0, 0])), start.qdd)
        ahead.sent(stamp, start, motion)
        command[0] += follow * (start.q[0] - q)
        q = start.q[0]
    return start, float(command[0])


def test_while_the_arm_follows_the_motions_are_one():
    start, command = jogged(Ahead(), 1.0, 1.0)
    assert start.qd[0] == pytest.approx(0.5, abs=0.01)
    assert start.q[0] - ROBOT.home[0] == pytest.approx(0.5 * 1.0, abs=0.05)
    assert abs(start.q[0] - command) < LEASH


def test_an_arm_that_is_held_up_is_not_run_away_from():
    start, command = jogged(Ahead(), 2.0, 0.0)
    assert abs(start.q[0] - command) < 2 * LEASH
