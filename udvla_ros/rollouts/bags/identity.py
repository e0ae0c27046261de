"""Whose data these are: episodes join one data set only if joints, units and geometry are the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np

from udvla_ros.motion.robot import RobotDescription
from udvla_ros.rollouts.bags.topic import BagError


@dataclass(frozen=True)
class Identity:
    """What must agree. ``geometry`` is where home joints bring the TCP (m, m, m, and the rotation, rounded).

    A copied robot file under another name, with other limits or topics, is the same robot.
    """

    joints: tuple[str, ...]
    gripper: tuple[str, float, float] | None  # joint, open, closed
    frames: tuple[str, str]
    geometry: tuple[float, ...]
    cameras: tuple[str, ...]


def identity_of(robot: RobotDescription) -> Identity:
    """Return the identity of a robot file."""
    gripper = robot.gripper
    probe = robot.kinematics.forward(0.1 * np.arange(1, len(robot.joints) + 1))
    return Identity(
        robot.joints,
        None if gripper is None else (gripper.joint, gripper.open, gripper.closed),
        (robot.base_frame, robot.tcp_frame),
        tuple(np.round(probe[:3].reshape(-1), 3).tolist()),
        tuple(robot.cameras),
    )


def prevailing(identities: Iterable[Identity]) -> Identity | None:
    """Return the identity of more than half of the episodes; None where there are none.

    Raises:
        BagError: there is no such majority, so that nobody can say which are the odd ones.
    """
    counts = Counter(identities)
    if not counts:
        return None
    (first, most), *others = counts.most_common(2)
    if others and 2 * most <= counts.total():
        apart = differ(first, others[0][0])
        mend = ", or name the cameras in common: --camera" if apart.startswith("cameras") else ""
        raise BagError(f"the episodes are not of one robot: {apart}; export them apart{mend}")
    return first


def differ(one: Identity, other: Identity) -> str:
    """Return in words where two identities differ first."""
    for field in fields(Identity):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if a != b:
            return f"{field.name} are {_said(a)} and {_said(b)}"
    return ""


def _said(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else "none" if value is None else str(value)
