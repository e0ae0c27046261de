"""What a recorded path of commands is as actions: the three spaces a policy may speak, and their description.

``tcp_delta`` is the published 7-D convention; ``joint_delta`` and ``joint_absolute`` are radians in the order of the
robot file's joints. The gripper, where there is one, comes last: +1 close, -1 open.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pinocchio as pin

from udvla_ros.motion.robot import RobotDescription

SPACES = ("tcp_delta", "joint_delta", "joint_absolute")
TCP = {"dx": "m", "dy": "m", "dz": "m", "wx": "rad", "wy": "rad", "wz": "rad"}
GRIPPER = {"gripper": "+1 close, -1 open"}
GRIPPER_MOVES = 0.02  # closed fraction within a step from which the gripper is on its way


def default_space(robot: RobotDescription) -> str:
    """Return the space for an arm: TCP steps where it can hold any orientation."""
    return "tcp_delta" if len(robot.joints) >= 6 else "joint_delta"


def names_and_units(robot: RobotDescription, space: str) -> dict[str, str]:
    """Return the name and unit of each dimension of an action."""
    moving = TCP if space == "tcp_delta" else dict.fromkeys(robot.joints, "rad")
    return {**moving, **(GRIPPER if robot.gripper else {})}


def described(robot: RobotDescription, space: str, chunk: int, control_hz: float) -> dict[str, Any]:
    """Return what the numbers of an action mean: the ``action`` of a data set's description."""
    units = names_and_units(robot, space)
    return {
        "space": space, "frame": "base", "chunk": chunk, "dimensions": len(units), "control_hz": control_hz,
        "gripper": len(units) - 1 if robot.gripper else None, "joints": list(robot.joints), "units": units,
    }  # fmt: skip


def difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """Return in what two descriptions of actions differ, as one phrase; empty where they agree."""
    keys = ("space", "frame", "chunk", "dimensions", "control_hz", "gripper", "joints")
    apart = [key for key in keys if key in a and key in b and a[key] != b[key]]
    return ", ".join(f"{key} {a[key]} and {b[key]}" for key in apart)


def actions_of(path: np.ndarray, robot: RobotDescription, space: str) -> np.ndarray:
    """Return the actions [K, D] between the positions [K+1, d (+1)] of a path, the gripper's last."""
    joints = len(robot.joints)
    moving = tcp_steps(path[:, :joints], robot) if space == "tcp_delta" else path[1:, :joints].copy()
    if space == "joint_delta":
        moving -= path[:-1, :joints]
    if robot.gripper is None:
        return moving
    return np.column_stack([moving, gripper_signs(np.asarray(robot.gripper.fraction(path[:, joints])))])


def tcp_steps(q: np.ndarray, robot: RobotDescription) -> np.ndarray:
    """Return the TCP steps [K, 6] between joint positions [K+1, d]: m and rotation vectors in the base frame."""
    poses = [robot.kinematics.forward(row) for row in q]
    return np.array([
        np.concatenate([after[:3, 3] - before[:3, 3], pin.log3(after[:3, :3] @ before[:3, :3].T)])
        for before, after in pairwise(poses)
    ]).reshape(-1, 6)  # fmt: skip


def gripper_signs(fraction: np.ndarray) -> np.ndarray:
    """Return the commands [K], +1 close or -1 open, of closed fractions [K+1]."""
    change = np.diff(fraction)
    signs = np.where(fraction[1:] > 0.5, 1.0, -1.0)
    moves = np.abs(change) > GRIPPER_MOVES  # on its way it is where it goes that was commanded
    signs[moves] = np.sign(change[moves])
    return signs
