"""The robot file: one YAML and its URDF say what the arm is, may do, and is called in ROS."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from udvla_ros import resources
from udvla_ros.errors import ConfigError
from udvla_ros.motion.collision import Capsules, capsules
from udvla_ros.motion.kinematics import Kinematics
from udvla_ros.motion.limits import Limits
from udvla_ros.motion.workspace import Workspace

KEYS = {
    "name", "urdf", "base_frame", "tcp_frame", "joints", "home", "limits", "workspace", "gripper", "cameras",
    "topics", "controller", "driver", "observation", "arbiter", "launch", "notes", "collision",
}  # fmt: skip
DRIVER_KEYS = {"start", "joint_states_hz", "program_running", "speed_scaling"}
LIMIT_KEYS = {"position", "position_margin", "velocity", "acceleration", "jerk", "tcp_speed"}
CONTROLLERS = (
    "joint_trajectory_controller",
    "scaled_joint_trajectory_controller",
    "forward_command_controller",
)
GRIPPERS = ("joint_trajectory", "gripper_command", "parallel_gripper_command", "forward_command")


@dataclass(frozen=True)
class Gripper:
    """The gripper as one joint: ``open`` and ``closed`` in its unit, ``max_velocity`` in that unit a second.

    ``feedback`` says whether its joint is among the joint states; without it, it is taken to start open.
    ``max_effort`` goes into the goals of gripper actions, in N; 0 leaves it to the driver.
    """

    joint: str
    open: float
    closed: float
    max_velocity: float
    command_topic: str = "gripper_controller/joint_trajectory"
    type: str = "joint_trajectory"
    feedback: bool = True
    max_effort: float = 0.0

    def position(self, fraction: Any) -> Any:
        """Return the joint position(s) of closed fraction(s) 0 to 1."""
        return self.open + (self.closed - self.open) * np.clip(fraction, 0.0, 1.0)

    def fraction(self, position: Any) -> Any:
        """Return the closed fraction(s), 0 to 1, of joint position(s)."""
        return np.clip((np.asarray(position, float) - self.open) / (self.closed - self.open), 0.0, 1.0)


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
        try:
            data = yaml.safe_load(path.read_text())
        except yaml.YAMLError as error:
            raise ConfigError(f"{path.name}: not valid YAML ({str(error).splitlines()[0]})") from None
        try:
            return cls._from(data, path)
        except ConfigError as error:
            raise ConfigError(f"{path.name}: {error}") from None

    @classmethod
    def _from(cls, data: Any, path: Path) -> RobotDescription:
        if not isinstance(data, dict):
            raise ConfigError("the file must be a mapping of keys; see config/robots/ur5e_sim.yaml")
        _known(data, KEYS, "")
        joints = tuple(_need(data, "joints"))
        if len(set(joints)) != len(joints) or not joints:
            raise ConfigError("joints: each joint must be named once")
        base, tcp = data.get("base_frame", "base_link"), data.get("tcp_frame", "tcp")
        urdf = path.parent / _need(data, "urdf")
        if not urdf.is_file():
            raise ConfigError(f"urdf: {urdf} does not exist; give a path relative to the robot file")
        kinematics = Kinematics(urdf, joints, tcp, base)
        limits = _limits(_need(data, "limits"), joints, kinematics)
        limits.validate(joints)
        workspace = _workspace(_need(data, "workspace"))
        workspace.validate()
        home = _vector(_need(data, "home"), len(joints), "home")
        for i, joint in enumerate(joints):
            if not limits.lower[i] <= home[i] <= limits.upper[i]:
                raise ConfigError(f"home of {joint} is {home[i]:g}, outside {limits.lower[i]:g} to {limits.upper[i]:g}")
        if workspace.depth(kinematics.forward(home)[None, :3, 3]).max() > 0:
            at = np.round(kinematics.forward(home)[:3, 3], 3).tolist()
            raise ConfigError(f"home puts the TCP at {at}, outside the workspace; mend home or workspace.box")
        controller = {"type": CONTROLLERS[0], **(data.get("controller") or {})}
        if controller["type"] not in CONTROLLERS:
            raise ConfigError(f"controller.type {controller['type']} is not one of {', '.join(CONTROLLERS)}")
        driver = data.get("driver") or {}
        _known(driver, DRIVER_KEYS, "driver.")
        return cls(
            name=str(data.get("name", path.stem)), joints=joints, home=home, limits=limits,
            workspace=workspace, gripper=_gripper(data.get("gripper"), joints),
            kinematics=kinematics, base_frame=base, tcp_frame=tcp,
            cameras=data.get("cameras") or {}, topics=data.get("topics") or {}, controller=controller, driver=driver,
            observation=data.get("observation") or {}, arbiter=data.get("arbiter") or {}, path=path,
            capsules=_collision(data.get("collision"), kinematics, home),
        )  # fmt: skip


def _need(data: dict[str, Any], key: str, where: str = "") -> Any:
    if data.get(key) is None:
        raise ConfigError(f"{where}{key} is missing; add it (see config/robots/ur5e_sim.yaml)")
    return data[key]


def _known(data: dict[str, Any], keys: set[str], where: str) -> None:
    for key in data:
        if key not in keys:
            raise ConfigError(f"{where}{key} is not a key; known are {', '.join(sorted(keys))}")


def _vector(value: Any, size: int, key: str) -> np.ndarray:
    try:
        array = np.asarray(value, float)
    except (TypeError, ValueError):
        raise ConfigError(f"{key}: {value!r} is not a list of numbers") from None
    if array.ndim == 0:
        array = np.full(size, float(array))
    if array.shape != (size,):
        raise ConfigError(f"{key} needs {size} numbers, one per joint, and has {array.size}")
    if not np.isfinite(array).all():
        raise ConfigError(f"{key} holds a number that is not finite")
    return array


def _limits(data: dict[str, Any], joints: tuple[str, ...], kinematics: Kinematics) -> Limits:
    _known(data, LIMIT_KEYS, "limits.")
    size, position = len(joints), data.get("position") or {}
    _known(position, {"lower", "upper"}, "limits.position.")
    lower, upper = kinematics.lower, kinematics.upper
    if position:
        lower = _vector(_need(position, "lower", "limits.position."), size, "limits.position.lower")
        upper = _vector(_need(position, "upper", "limits.position."), size, "limits.position.upper")
    velocity = _vector(data.get("velocity", kinematics.velocity), size, "limits.velocity")
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
    margin = _vector(data.get("position_margin", 0.0), size, "limits.position_margin")
    if (margin < 0).any():
        raise ConfigError("limits.position_margin is negative; give 0 or more rad")
    return Limits(
        hard_lower=lower, hard_upper=upper, lower=lower + margin, upper=upper - margin, velocity=velocity,
        acceleration=_vector(_need(data, "acceleration", "limits."), size, "limits.acceleration"),
        jerk=_vector(_need(data, "jerk", "limits."), size, "limits.jerk"),
        tcp_speed=float(_vector(_need(data, "tcp_speed", "limits."), 1, "limits.tcp_speed")[0]),
    )  # fmt: skip


def _workspace(data: dict[str, Any]) -> Workspace:
    _known(data, {"box", "forbidden"}, "workspace.")
    try:
        box = np.asarray(_need(data, "box", "workspace."), float).reshape(2, 3)
        forbidden = np.asarray(data.get("forbidden") or [], float).reshape(-1, 2, 3)
    except (TypeError, ValueError):
        raise ConfigError("workspace: each box is two corners [[x, y, z], [x, y, z]] in m") from None
    if not (np.isfinite(box).all() and np.isfinite(forbidden).all()):
        raise ConfigError("workspace: a corner is not finite; give metres in the base frame")
    return Workspace(box, forbidden)


def _collision(data: dict[str, Any] | None, kinematics: Kinematics, home: np.ndarray) -> Capsules | None:
    if not data:
        return None
    _known(data, {"check", "margin", "capsules", "boxes", "ignore"}, "collision.")
    if not isinstance(_need(data, "capsules", "collision."), dict):
        raise ConfigError("collision.capsules: give a mapping of link to [[x, y, z], [x, y, z], radius]")
    found = capsules(data, kinematics, home)  # looked at even where it is off, so that switching it on is no surprise
    return found if data.get("check", True) else None


def _gripper(data: dict[str, Any] | None, joints: tuple[str, ...]) -> Gripper | None:
    if not data:
        return None
    _known(data, set(Gripper.__dataclass_fields__), "gripper.")
    for key in ("joint", "open", "closed", "max_velocity"):
        _need(data, key, "gripper.")
    gripper = Gripper(**data)
    if gripper.open == gripper.closed:
        raise ConfigError(f"gripper: open and closed are both {gripper.open:g}; they must differ")
    if gripper.type not in GRIPPERS:
        raise ConfigError(f"gripper.type {gripper.type} is not one of {', '.join(GRIPPERS)}")
    if not gripper.max_velocity > 0:
        raise ConfigError(f"gripper.max_velocity is {gripper.max_velocity:g}; give a number above 0")
    if gripper.joint in joints:
        raise ConfigError(f"gripper.joint {gripper.joint} is also one of the arm's joints; name it once")
    return gripper
