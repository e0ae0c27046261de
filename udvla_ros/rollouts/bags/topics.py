"""Which topics belong to an episode: what the robot file and the table of nodes name, and what the user adds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from udvla_ros.motion.modes import SOURCES

if TYPE_CHECKING:
    from udvla_ros.motion.robot import RobotDescription

# Relative names; absolute ones stay where they are in every namespace.
ALWAYS = (
    "arbiter/command", "arbiter/mode", "arbiter/mode_reason", "instruction", "emergency_stop",
    "policy_node/chunk_info", "policy_node/predicted_image", "policy_node/scores", "policy/hand_over",
    "sim_node/episode", "robot_description", "/diagnostics", "/parameter_events", "/tf_static",
)  # fmt: skip


@dataclass(frozen=True)
class Wanted:
    """A topic to record: the first of ``names`` that is published; ``needed`` ones are missed aloud."""

    names: tuple[str, ...]
    camera: bool = False
    needed: bool = False


def episode_topics(robot: RobotDescription, images: str = "raw", extra: str = "") -> list[Wanted]:
    """Return what to record, each topic once.

    Args:
        robot: names cameras, joint states and controllers.
        images: ``compressed`` prefers ``<camera>/compressed`` where somebody publishes it.
        extra: more names, separated by commas or blanks.
    """
    wanted = []
    for camera in robot.cameras.values():
        name = camera["topic"]
        both = images == "compressed" and not name.endswith("/compressed")
        wanted.append(Wanted((f"{name}/compressed", name) if both else (name,), camera=True, needed=True))
    states = robot.topics.get("joint_states", "joint_states")
    plain = [states, robot.topics.get("command", "")]
    plain += [f"{source}/joint_trajectory" for source in SOURCES]
    if robot.gripper is not None:
        action = robot.gripper.type != "joint_trajectory"
        plain.append(robot.gripper.command_topic + ("/_action/status" if action else ""))
    plain += [*ALWAYS, *(f"policy_node/predicted_image/{camera}" for camera in robot.cameras)]
    plain += [name for name in re.split(r"[,\s]+", extra) if name]
    taken = {name for want in wanted for name in want.names}
    for name in plain:
        if name and name not in taken:
            taken.add(name)
            wanted.append(Wanted((name,), needed=name == states))
    return wanted
