"""What a robot file may say, key by key: the one schema, and the parts of it that are values of their own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from udvla_ros import schema
from udvla_ros.errors import ConfigError
from udvla_ros.motion.exchange import ArbiterOptions
from udvla_ros.schema import Check, each, flag, mapping, number, section, several, shown, text, topic

EXAMPLE = "config/robots/ur5e_sim.yaml"
CONTROLLERS = (
    "joint_trajectory_controller",
    "scaled_joint_trajectory_controller",
    "forward_command_controller",
)
GRIPPERS = ("joint_trajectory", "gripper_command", "parallel_gripper_command", "forward_command")
FITS = ("exact", "crop", "pad", "stretch")  # to a bundle's size, see udvla_ros.rollouts.frames
COLOURS = ("rgb8", "bgr8", "rgba8", "bgra8", "mono8")  # encodings that a policy can see with


@dataclass(frozen=True)
class Gripper:
    """The gripper as one joint: ``open`` and ``closed`` in its unit, ``max_velocity`` in that unit a second.

    ``feedback`` says whether its joint is among the joint states; without it, it is taken to start open.
    ``max_effort`` goes into the goals of gripper actions, in N; 0 leaves it to the driver.
    """

    joint: str
    open: float = field(metadata={"low": -1e3, "high": 1e3})
    closed: float = field(metadata={"low": -1e3, "high": 1e3})
    max_velocity: float = field(metadata={"above": 0.0, "high": 1e4})
    command_topic: str = field(default="gripper_controller/joint_trajectory", metadata={"check": topic})
    type: str = field(default="joint_trajectory", metadata={"check": text(*GRIPPERS)})
    feedback: bool = True
    max_effort: float = field(default=0.0, metadata={"low": 0.0, "high": 1e6})

    def position(self, fraction: Any) -> Any:
        """Return the joint position(s) of closed fraction(s) 0 to 1."""
        return self.open + (self.closed - self.open) * np.clip(fraction, 0.0, 1.0)

    def fraction(self, position: Any) -> Any:
        """Return the closed fraction(s), 0 to 1, of joint position(s)."""
        return np.clip((np.asarray(position, float) - self.open) / (self.closed - self.open), 0.0, 1.0)


@dataclass(frozen=True)
class Guards:
    """When an observation is refused; a guard at 0 is off (not so the first two).

    Args:
        max_age: seconds between an image's stamp and now.
        max_skew: seconds between the cameras' stamps.
        frozen_after: seconds of exactly the same picture. A real sensor's noise never repeats; a rendered
            scene at rest does, so a simulation leaves this off.
        dark_below: mean brightness (0 to 255) under which a picture is black: a cap, a dead exposure.
        bright_above: mean brightness above which it is washed out: an open exposure, the sun.
        flat_below: spread (standard deviation of the numbers) under which it shows nothing: a covered lens, a
            decoder's grey. A picture of a plain wall has noise of its own above 2.
    """

    max_age: float = field(default=0.5, metadata={"above": 0.0, "high": 3600.0})
    max_skew: float = field(default=0.1, metadata={"low": 0.0, "high": 3600.0})
    frozen_after: float = field(default=0.0, metadata={"low": 0.0, "high": 3600.0})
    dark_below: float = field(default=2.0, metadata={"low": 0.0, "high": 255.0})
    bright_above: float = field(default=253.0, metadata={"low": 0.0, "high": 255.0})
    flat_below: float = field(default=0.0, metadata={"low": 0.0, "high": 255.0})


def vector(size: int, low: float = -np.inf, high: float = np.inf) -> Check:
    """Return the check of one number per joint [size], or of one for all."""
    one = number(low, high)

    def check(value: Any, key: str) -> np.ndarray:
        if not isinstance(value, (list, tuple)):
            return np.full(size, float(one(value, key)))
        if len(value) != size:
            raise ConfigError(f"{key} needs {size} numbers, one per joint, and has {len(value)}")
        return np.array([one(x, f"{key}[{i}]") for i, x in enumerate(value)], float)

    return check


def box(value: Any, key: str) -> np.ndarray:
    """Check two corners, the lower one first, and return them [2, 3]."""
    corner = several(number(-1e3, 1e3), 3, 3)
    try:
        return np.array(several(corner, 2, 2)(value, key), float)
    except ConfigError as error:
        raise ConfigError(f"{error}; each box is two corners [[x, y, z], [x, y, z]] in m") from None


def camera_name(value: Any, key: str) -> str:
    """Check the name of a camera: topics and data sets carry it."""
    name = text()(value, key)
    if not (name.isascii() and name.replace("_", "a").isalnum()) or name[0].isdigit():
        raise ConfigError(f"{key} is {shown(value)}; give letters, digits and _, a letter first")
    return name


CAMERA = mapping(
    {
        "topic": topic,
        "encoding": text(*COLOURS),
        "hz": number(above=0.0, high=1e4),
        "crop": several(number(0, 1e5, whole=True), 4, 4),  # [x, y, width, height], px of the picture as it comes
        "fit": text(*FITS),
    },
    required=("topic",),
)
PARTS: dict[str, Check] = {
    "topics": section(mapping({"joint_states": topic, "command": topic})),
    "controller": section(
        mapping({"type": text(*CONTROLLERS), "interface": text("topic", "action"), "action": topic})
    ),
    "driver": section(
        mapping(
            {
                "start": text(),
                "joint_states_hz": number(above=0.0, high=1e5),
                "program_running": topic,
                "speed_scaling": topic,
            }
        )
    ),
    "cameras": section(each(CAMERA, camera_name)),
    "observation": section(schema.of(Guards)),
    "arbiter": section(schema.of(ArbiterOptions)),
}
COLLISION = mapping(
    {
        "check": flag,
        "margin": number(0.0, 10.0),
        "capsules": each(lambda value, key: value),  # by their shape, in udvla_ros.motion.collision
        "boxes": several(box),
        "ignore": several(several(text(), 2, 2)),
    },
    required=("capsules",),
)


def robot_file(joints: int) -> Check:
    """Return the check of a whole robot file of an arm with so many joints."""
    position = mapping(dict.fromkeys(("lower", "upper"), vector(joints, -1e3, 1e3)), required=("lower", "upper"))
    limits = mapping(
        {
            "position": schema.optional(position),
            "position_margin": vector(joints, 0.0, 1e3),
            "velocity": vector(joints, high=1e4),
            "acceleration": vector(joints, high=1e6),
            "jerk": vector(joints, high=1e9),
            "tcp_speed": number(high=1e3),
        },
        required=("acceleration", "jerk", "tcp_speed"),
    )
    workspace = mapping({"box": box, "forbidden": schema.optional(several(box))}, required=("box",))
    keys: dict[str, Check] = {
        "name": text(),
        "urdf": text(),
        "base_frame": text(),
        "tcp_frame": text(),
        "joints": several(text(), 1, 32),
        "home": vector(joints, -1e3, 1e3),
        "limits": limits,
        "workspace": workspace,
        "gripper": schema.optional(schema.of(Gripper, ("joint", "open", "closed", "max_velocity"))),
        "collision": schema.optional(COLLISION),
        "notes": lambda value, key: value,
        **PARTS,
    }
    return mapping(keys, ("joints", "urdf", "home", "limits", "workspace"), EXAMPLE)
