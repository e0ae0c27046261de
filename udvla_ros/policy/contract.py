"""Does the robot offer what the bundle needs? Both sides are named where they differ."""

from __future__ import annotations

from typing import Any

from udvla_ros.errors import ContractError
from udvla_ros.motion.action_space import SPACES, make_action_space
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.motion.robot_file import Guards


def guards_of(robot: RobotDescription) -> Guards:
    """Return the observation guards of a robot file, which has been checked."""
    return Guards(**robot.observation)


def check(config: Any, robot: RobotDescription) -> Any:
    """Return the action space that turns the bundle's actions into this robot's joint targets.

    Args:
        config: of a loaded policy: ``name``, ``cameras`` (names), ``control_hz``, ``chunk``, ``action_space``
            and, where the bundle says so, ``action_frame``, ``joints``, ``dimensions`` and ``gripper``.
        robot: the robot file.

    Raises:
        ContractError: the robot lacks a camera, a gripper or a joint, or the bundle speaks an unknown convention.
    """
    bundle = f"bundle '{config.name}'"
    lacking = [name for name in config.cameras if name not in robot.cameras]
    if lacking:
        raise ContractError(
            f"{bundle} looks through cameras {', '.join(config.cameras)}; robot '{robot.name}' has "
            f"{', '.join(robot.cameras) or 'none'}: name {', '.join(lacking)} under cameras in {robot.path.name}"
        )
    if config.action_space not in SPACES:
        raise ContractError(
            f"{bundle} speaks action space '{config.action_space}', known are {', '.join(SPACES)}: "
            "this version cannot run it"
        )
    if config.action_space == "tcp_delta" and len(robot.joints) < 6:
        raise ContractError(
            f"{bundle} moves the TCP in six directions (tcp_delta), robot '{robot.name}' has {len(robot.joints)} "
            "joints and cannot hold an orientation: use a bundle of action space joint_delta or joint_absolute"
        )
    gripper = getattr(config, "gripper", 6)
    if gripper is not None and robot.gripper is None:
        raise ContractError(
            f"{bundle} commands a gripper, robot '{robot.name}' has none: add gripper to {robot.path.name}"
        )
    if gripper is None and robot.gripper is not None:
        raise ContractError(
            f"{bundle} commands no gripper, robot '{robot.name}' has one: take gripper out of a copy of "
            f"{robot.path.name}, or train on recordings with it"
        )
    moving = 6 if config.action_space == "tcp_delta" else len(robot.joints)
    wanted, has = moving + (robot.gripper is not None), getattr(config, "dimensions", None)
    if has is not None and (has != wanted or gripper not in (None, wanted - 1)):
        raise ContractError(
            f"{bundle} speaks {config.action_space} in {has} numbers, the gripper at {gripper}; robot '{robot.name}' "
            f"takes {wanted}, the gripper last: the bundle is of another robot, or its action space is mislabelled"
        )
    joints = getattr(config, "joints", None)
    if joints and tuple(joints) != tuple(robot.joints):
        raise ContractError(
            f"{bundle} commands joints {', '.join(joints)}; robot '{robot.name}' has {', '.join(robot.joints)}"
        )
    if not (0 < config.control_hz <= 200 and config.chunk >= 1):
        raise ContractError(f"{bundle} asks for chunks of {config.chunk} at {config.control_hz} Hz; it is damaged")
    options = {}
    if config.action_space == "tcp_delta":
        options["frame"] = getattr(config, "action_frame", "base")
    return make_action_space(config.action_space, robot, **options)
