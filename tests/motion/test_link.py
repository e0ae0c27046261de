"""The arbiter against an honest controller at 500 Hz that is not always there, not always in time, not only ours."""

from __future__ import annotations

import numpy as np
import pytest
from motion.rig import Rig
from motion.test_arbiter import along, moving

from udvla_ros.motion.exchange import ArbiterOptions
from udvla_ros.motion.modes import Mode
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.motion.stitch import StitchOptions

REST = 0.6  # s


@pytest.fixture(scope="module")
def robot() -> RobotDescription:
    return RobotDescription.load("ur5e")


@pytest.fixture
def rig(robot) -> Rig:
    return Rig(robot, stitch=StitchOptions(lead=0.02), controller={"rate": 500.0})


def replanning(rig: Rig, seconds: float) -> None:
    """Let the policy send chunk after chunk, whoever listens."""
    for _ in range(round(seconds / 0.2)):
        rig.offer("policy", along(rig, 0.5))
        rig.wait(0.2)


def rested(rig: Rig, after: float) -> None:
    rig.wait(after)
    rig.judge_rest()
    rig.wait(1.0)
    rig.judge()


def test_deactivated_and_activated_again_the_arm_does_not_leap(rig):
    moving(rig)
    rig.controller.arm.deactivate()
    rig.arbiter.impede("controller", "joint_trajectory_controller is inactive", rig.now)
    rig.send()
    assert rig.arbiter.mode is Mode.STOPPED and "inactive" in rig.arbiter.mode_reason
    replanning(rig, 1.8)
    held = rig.controller.state[0]
    rig.controller.arm.activate(held)
    rig.arbiter.impede("controller", "", rig.now)
    replanning(rig, 1.0)
    np.testing.assert_allclose(rig.controller.state[0], held, atol=1e-12)
    assert rig.arbiter.mode is Mode.STOPPED, "nobody engaged it"
    assert rig.act("reset").accepted and rig.act("engage", "policy").accepted
    replanning(rig, 0.6)
    assert np.abs(rig.controller.state[0] - held).max() > 0.02, "and then it goes on"
    rig.settle()


def test_while_it_is_inactive_nothing_is_reset_or_engaged(rig):
    rig.arbiter.impede("controller", "it is inactive", rig.now)
    assert rig.act("engage", "policy").reason == "it is inactive" and rig.arbiter.mode is Mode.HOLD
    rig.act("stop", "button")
    assert rig.act("reset").reason == "it is inactive"
    assert not rig.offer("teleop", along(rig)).accepted


@pytest.mark.parametrize("factor", [0.5, 0.1])
def test_a_robot_that_plays_slower_than_time_is_halted_without_catching_up(rig, factor):
    moving(rig)
    rig.controller.arm.scaling = factor  # the robot's own doing, at once
    rig.wait(0.02)
    rig.arbiter.impede("scaling", f"the robot plays at {factor:.0%}", rig.now)
    rig.send()
    assert rig.arbiter.mode is Mode.HOLD and "plays at" in rig.arbiter.mode_reason
    assert not rig.act("engage", "policy").accepted
    rig.wait(0.8 / factor)
    rig.judge_rest()
    rig.controller.arm.scaling = 1.0
    rig.arbiter.impede("scaling", "", rig.now)
    rig.wait(1.0)
    rig.judge_rest()
    speed = np.abs(np.diff(rig.controller.written()[1], axis=0)).max() / rig.controller.period
    assert speed < 0.6, "it was told 0.5 rad/s, and never catches up"


def test_a_drivers_clock_that_goes_ahead_halts_the_arm_and_nobody_is_engaged(rig):
    moving(rig)
    rig.driver_ahead(0.2)
    rig.wait(0.2)
    assert rig.arbiter.mode is Mode.STOPPED and "0.20 s ahead of this clock" in rig.arbiter.mode_reason
    rig.wait(1.5)
    rig.judge_rest()
    assert "ahead of this clock" in rig.act("reset").reason


@pytest.mark.parametrize("sag", [0.055, 0.25])
def test_an_arm_that_sagged_is_reset_without_a_step_though_its_controller_lived_on(robot, sag):
    options = ArbiterOptions(following_error=1.0)
    rig = Rig(robot, stitch=StitchOptions(lead=0.02), controller={"rate": 500.0}, options=options)
    rig.act("stop", "button")
    rig.blind = True
    rig.wait(0.1)
    sagged = robot.home - sag * np.eye(6)[1]
    rig.arbiter.observe([*robot.joints, robot.gripper.joint], [*sagged, 0.0], [0.0] * 7, rig.now, rig.now)
    assert rig.act("reset").accepted and rig.act("engage", "policy").accepted
    assert rig.offer("policy", along(rig)).accepted
    rig.wait(3.0)
    rig.judge()
    assert abs(rig.controller.state[0][1] - sagged[1]) < 1e-6


def test_somebody_elses_command_stops_the_arm(rig):
    moving(rig)
    rig.arbiter.intruded("somebody else commanded the controller", rig.now)
    rig.send()
    assert rig.arbiter.mode is Mode.STOPPED
    rested(rig, REST)
    rig.arbiter.impede("writers", "/other may write too", rig.now)
    assert rig.act("reset").accepted and rig.act("engage", "policy").reason == "/other may write too"
