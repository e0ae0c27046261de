"""Bundle and robot are checked against each other, and both are named where they differ."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from udvla_ros.errors import ConfigError, ContractError
from udvla_ros.motion.action_space import JointDeltaSpace, TcpDeltaSpace
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.policy import contract

ROBOT = RobotDescription.load("ur5e_sim")


def config(**changes) -> SimpleNamespace:
    fields = {"name": "nano", "cameras": ("front", "wrist"), "control_hz": 10.0, "chunk": 8}
    return SimpleNamespace(**fields | {"action_space": "tcp_delta"} | changes)


def test_the_action_space_is_the_bundles():
    space = contract.check(config(action_frame="tcp"), ROBOT)
    assert isinstance(space, TcpDeltaSpace) and space.frame == "tcp"
    assert isinstance(contract.check(config(action_space="joint_delta"), ROBOT), JointDeltaSpace)


@pytest.mark.parametrize(
    ("bundle", "robot", "said"),
    [
        ({"cameras": ("front", "side")}, {}, "name side under cameras in ur5e_sim.yaml"),
        ({"action_space": "torques"}, {}, "speaks action space 'torques'"),
        ({"joints": ("a", "b")}, {}, "commands joints a, b; robot 'ur5e_sim' has shoulder_pan_joint"),
        ({"control_hz": 0.0}, {}, "at 0.0 Hz"),
        ({"chunk": 0}, {}, "chunks of 0"),
        ({}, {"gripper": None}, "commands a gripper, robot 'ur5e_sim' has none"),
    ],
)
def test_a_mismatch_names_both_sides(bundle, robot, said):
    with pytest.raises(ContractError) as error:
        contract.check(config(**bundle), replace(ROBOT, **robot))
    assert said in str(error.value) and "bundle 'nano'" in str(error.value) and "\n" not in str(error.value)


def test_five_joints_take_joint_actions_and_no_tcp_deltas():
    so101 = RobotDescription.load("so101")
    with pytest.raises(ContractError, match=r"has 5 joints and cannot hold an orientation: use .* joint_delta"):
        contract.check(config(), so101)
    assert isinstance(contract.check(config(action_space="joint_delta"), so101), JointDeltaSpace)
    with pytest.raises(ConfigError, match="5 joints"):
        TcpDeltaSpace(so101)


def test_guards_come_from_the_robot_file():
    assert contract.guards_of(replace(ROBOT, observation={"max_age": 0.7})).max_age == 0.7
    assert contract.guards_of(ROBOT).max_age == ROBOT.observation["max_age"]
