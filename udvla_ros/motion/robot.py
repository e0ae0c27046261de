"""The robot file: one YAML and its URDF say what the arm is, may do, and is called in ROS."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from udvla_ros import resources, schema
from udvla_ros.errors import ConfigError
from udvla_ros.motion.collision import Capsules, capsules
from udvla_ros.motion.kinematics import Kinematics
from udvla_ros.motion.limits import Limits
from udvla_ros.motion.robot_file import CONTROLLERS, Gripper, robot_file
from udvla_ros.motion.urdf import examine
from udvla_ros.motion.workspace import Workspace


@dataclass(frozen=True, eq=False)
class RobotDescription:
    """Everything about one robot; every joint vector of this package follows ``joints``.

    Attributes:
        name: of the file.
        joints: arm joints in kinematic order.
        home: [d] rad, a pose to start from.
        limits, workspace, gripper, kinematics: see their classes; ``gripper`` is None for a bare arm.
        capsules: what must not touch what; None where the file does not say or has it switched off.
        base_frame, tcp_frame: frame names of the URDF.
        cameras, topics, controller, driver, observation, arbiter: mappings as in the file.
        path: the YAML read.
    """

    name: str
    joints: tuple[str, ...]
    home: np.ndarray
    limits: Limits
    workspace: Workspace
    gripper: Gripper | None
    kinematics: Kinematics
    base_frame: str
    tcp_frame: str
    cameras: dict[str, dict[str, Any]] = field(default_factory=dict)
    topics: dict[str, str] = field(default_factory=dict)
    controller: dict[str, Any] = field(default_factory=dict)
    driver: dict[str, Any] = field(default_factory=dict)
    observation: dict[str, float] = field(default_factory=dict)
    arbiter: dict[str, Any] = field(default_factory=dict)
    path: Path = Path()
    capsules: Capsules | None = None

    @property
    def command_names(self) -> tuple[str, ...]:
        """Names of the columns of a full command: the arm's joints and, last, the gripper's."""
        return self.joints + ((self.gripper.joint,) if self.gripper else ())

    @classmethod
    def load(cls, name_or_path: str | Path) -> RobotDescription:
        """Read a robot file.

        Args:
            name_or_path: ``ur5e_sim`` for the shipped ``config/robots/ur5e_sim.yaml``, or a file of your own.

        Raises:
            ConfigError: a key is missing, unknown or of the wrong size, or limits contradict each other; one
                line with file, key, cause and mend.
        """
        text = str(name_or_path)
        path = resources.find(text if text.endswith((".yaml", ".yml")) else f"config/robots/{text}.yaml")
        data = schema.read_yaml(path)
        try:
            return cls._from(data, path)
        except ConfigError as error:
            raise ConfigError(f"{path.name}: {error}") from None

    @classmethod
    def _from(cls, data: Any, path: Path) -> RobotDescription:
        named = data.get("joints") if isinstance(data, dict) else None
        said = robot_file(len(named) if isinstance(named, list) else 1)(data, "")
        joints = tuple(said["joints"])
        if len(set(joints)) != len(joints):
            raise ConfigError("joints: each joint must be named once")
        base, tcp = said.get("base_frame", "base_link"), said.get("tcp_frame", "tcp")
        urdf = path.parent / said["urdf"]
        examine(urdf, joints)
        kinematics = Kinematics(urdf, joints, tcp, base)
        limits = _limits(said["limits"], joints, kinematics)
        limits.validate(joints)
        boxes = said["workspace"]
        workspace = Workspace(boxes["box"], np.asarray(boxes.get("forbidden") or [], float).reshape(-1, 2, 3))
        workspace.validate()
        home = said["home"]
        for i, joint in enumerate(joints):
            if not limits.lower[i] <= home[i] <= limits.upper[i]:
                raise ConfigError(f"home of {joint} is {home[i]:g}, outside {limits.lower[i]:g} to {limits.upper[i]:g}")
        if workspace.depth(kinematics.forward(home)[None, :3, 3]).max() > 0:
            at = np.round(kinematics.forward(home)[:3, 3], 3).tolist()
            raise ConfigError(f"home puts the TCP at {at}, outside the workspace; mend home or workspace.box")
        cameras = said.get("cameras", {})
        topics = [camera["topic"] for camera in cameras.values()]
        if len(set(topics)) != len(topics):
            raise ConfigError("cameras: two of them have one topic; name each camera's own")
        return cls(
            name=said.get("name", path.stem), joints=joints, home=home, limits=limits, workspace=workspace,
            gripper=_gripper(said.get("gripper"), joints), kinematics=kinematics, base_frame=base, tcp_frame=tcp,
            cameras=cameras, topics=said.get("topics", {}),
            controller={"type": CONTROLLERS[0], **said.get("controller", {})},
            driver=said.get("driver", {}), observation=said.get("observation", {}), arbiter=said.get("arbiter", {}),
            path=path, capsules=_collision(said.get("collision"), kinematics, home),
        )  # fmt: skip


def _limits(said: dict[str, Any], joints: tuple[str, ...], kinematics: Kinematics) -> Limits:
    position = said.get("position") or {}
    lower, upper = position.get("lower", kinematics.lower), position.get("upper", kinematics.upper)
    velocity = said.get("velocity", kinematics.velocity)
    for i, joint in enumerate(joints):
        if lower[i] < kinematics.lower[i] - 1e-9 or upper[i] > kinematics.upper[i] + 1e-9:
            raise ConfigError(
                f"limits.position of {joint} ({lower[i]:g} to {upper[i]:g}) goes beyond the URDF's "
                f"({kinematics.lower[i]:g} to {kinematics.upper[i]:g}); stay inside it"
            )
        if velocity[i] > kinematics.velocity[i] + 1e-9 > 1e-6:
            raise ConfigError(
                f"limits.velocity of {joint} is {velocity[i]:g}, above the URDF's {kinematics.velocity[i]:g}; lower it"
            )
    margin = said.get("position_margin", 0.0)
    return Limits(
        hard_lower=lower, hard_upper=upper, lower=lower + margin, upper=upper - margin, velocity=velocity,
        acceleration=said["acceleration"], jerk=said["jerk"], tcp_speed=float(said["tcp_speed"]),
    )  # fmt: skip


def _collision(said: dict[str, Any] | None, kinematics: Kinematics, home: np.ndarray) -> Capsules | None:
    if not said:
        return None
    found = capsules(said, kinematics, home)  # looked at even where it is off, so that switching it on is no surprise
    return found if said.get("check", True) else None


def _gripper(said: dict[str, Any] | None, joints: tuple[str, ...]) -> Gripper | None:
    if not said:
        return None
    gripper = Gripper(**said)
    if gripper.open == gripper.closed:
        raise ConfigError(f"gripper: open and closed are both {gripper.open:g}; they must differ")
    if gripper.joint in joints:
        raise ConfigError(f"gripper.joint {gripper.joint} is also one of the arm's joints; name it once")
    return gripper
