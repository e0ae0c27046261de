"""Write a robot file: what URDF and graph tell is filled in, what a person knows is marked, every key explained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from udvla_ros.errors import ConfigError
from udvla_ros.motion.kinematics import Kinematics
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.robots.arm_of import Arm, Joint, arm_of

MARGIN = 0.05  # rad
SHARE = 0.5  # of the URDF's velocity limits
TO_SPEED = 0.25  # s from rest to the velocity limit, and the same to the acceleration's: gentle
REACH = (0.25, 0.25, 0.20)  # m about home: the box, until its owner has walked a larger one
LOOK = "LOOK"  # marks what a person has to look at


@dataclass
class Seen:
    """What a running graph tells of its robot.

    Attributes:
        urdf: of ``robot_description``.
        joint_states: topic and its newest positions by joint.
        cameras: name -> topic.
        commands: topics on which a trajectory controller listens.
    """

    urdf: bytes = b""
    joint_states: str = "joint_states"
    positions: dict[str, float] = field(default_factory=dict)
    cameras: dict[str, str] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)


def write_robot_file(path: Path, seen: Seen, base: str = "", tcp: str = "", gripper: bool = True) -> RobotDescription:
    """Write the YAML and its URDF beside it, and return it as it is read again.

    Raises:
        ConfigError: one of them is there already, or the URDF has no arm.
    """
    urdf = path.with_suffix(".urdf")
    for file in (path, urdf):
        if file.exists():
            raise ConfigError(f"{file} exists; name another, or remove it")
    arm = arm_of(seen.urdf, base, tcp)
    path.parent.mkdir(parents=True, exist_ok=True)
    urdf.write_bytes(_with_limits(seen.urdf, arm))
    try:
        kinematics = Kinematics(urdf, [joint.name for joint in arm.joints], arm.tcp, arm.base)
        home = home_of(arm, seen.positions, kinematics)
        path.write_text(text(path.stem, arm, seen, home, kinematics.forward(home)[:3, 3], gripper), encoding="utf-8")
        return RobotDescription.load(path)
    except ConfigError:
        path.unlink(missing_ok=True)
        urdf.unlink(missing_ok=True)
        raise


def _with_limits(urdf: bytes, arm: Arm) -> bytes:
    """Return the URDF with what its arm's joints need: a range for those that turn for ever, a velocity limit."""
    import xml.etree.ElementTree as xml

    root = xml.fromstring(urdf)
    for joint in arm.joints:
        part = next(p for p in root.findall("joint") if p.get("name") == joint.name)
        limit = part.find("limit")
        limit = xml.SubElement(part, "limit") if limit is None else limit
        part.set("type", "revolute")
        for key, value in (("lower", -3.1), ("upper", 3.1), ("velocity", 1.0), ("effort", 0.0)):
            if limit.get(key) is None:
                limit.set(key, f"{value:g}")
    return xml.tostring(root, encoding="utf-8")


def home_of(arm: Arm, positions: Mapping[str, float], kinematics: Kinematics) -> np.ndarray:
    """Return a pose to start from [d]: where the arm stands now, else the middle of its joints' ranges."""
    lower, upper = kinematics.lower + 2 * MARGIN, kinematics.upper - 2 * MARGIN
    middle = np.where(lower < upper, (lower + upper) / 2, 0.0)
    now = np.array([positions.get(joint.name, m) for joint, m in zip(arm.joints, middle, strict=True)])
    return np.round(np.clip(now, np.minimum(lower, middle), np.maximum(upper, middle)), 4)


def text(name: str, arm: Arm, seen: Seen, home: np.ndarray, at: np.ndarray, gripper: bool) -> str:
    """Return the YAML."""
    velocity = [round(SHARE * (v if np.isfinite(v := joint.velocity) and v > 0 else 1.0), 3) for joint in arm.joints]
    low = np.round(np.array(at) - REACH, 3)
    box = [[*map(float, low)], [*map(float, np.round(np.array(at) + REACH, 3))]]
    told = "where the arm stood" if seen.positions else f"{LOOK}: the middle of the joints' ranges"
    cameras = seen.cameras or {"front": "front/image_raw", "wrist": "wrist/image_raw"}
    command = (seen.commands or ["joint_trajectory_controller/joint_trajectory"])[0]
    where = "" if seen.commands else f"   # {LOOK}: no controller was heard"
    lines = [
        f"# {name}: written by `udvla robot new`. SI units and radians. Look at every line marked {LOOK}, then:",
        f"#   udvla robot check {name}.yaml      udvla doctor --robot {name}.yaml",
        f"name: {name}", f"urdf: {name}.urdf              # beside this file",
        f"base_frame: {arm.base}          # poses, workspace and TCP steps are in its axes",
        f"tcp_frame: {arm.tcp}            # {LOOK}: the point between the fingers; what the policy moves",
        f"joints: [{', '.join(joint.name for joint in arm.joints)}]   # in kinematic order",
        f"home: {[float(q) for q in home]}   # rad; {told}", "",
        "limits:                        # position bounds come from the URDF",
        f"  position_margin: {MARGIN}        # rad kept between the soft bound (motion halts) and the URDF's (refused)",
        f"  velocity: {velocity}   # rad/s: {SHARE:g} of the URDF's",
        f"  acceleration: {[round(v / TO_SPEED, 3) for v in velocity]}   # {LOOK}: rad/s^2, of your arm's manual",
        f"  jerk: {[round(v / TO_SPEED**2 * 4, 3) for v in velocity]}   # {LOOK}: rad/s^3",
        "  tcp_speed: 0.25              # m/s", "",
        "workspace:                     # where the TCP may be, base frame, m",
        f"  box: {box}   # {LOOK}: about home; walk its corners before you widen it",
        "  forbidden: []                # boxes inside it where it may not be", "",
    ]  # fmt: skip
    if arm.gripper is not None and gripper:
        lines += _gripper_lines(arm.gripper)
    else:
        lines += ["# gripper: none was found; a bundle for this arm commands none either", ""]
    lines += ["cameras:                       # 1 to 4, by any names: the bundle is trained on these names"]
    mark = "" if seen.cameras else f"   # {LOOK}: no camera was heard"
    lines += [f"  {camera}: {{topic: {topic}}}{mark}" for camera, topic in cameras.items()]
    lines += [
        "topics:", f"  joint_states: {seen.joint_states}", f"  command: {command}{where}",
        "controller: {type: joint_trajectory_controller}   # or scaled_joint_..., forward_command_controller",
        "observation: {max_age: 0.5, max_skew: 0.1, frozen_after: 1.0, flat_below: 2.0}   # when a picture is refused",
        "arbiter:", "  joint_state_timeout: 0.3     # s without joint states until the arm is stopped",
        "  following_error: 0.2         # rad between command and measurement that stop it", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _gripper_lines(joint: Joint) -> list[str]:
    ends = [joint.lower, joint.upper]
    low, high = (ends if np.isfinite(ends).all() and ends[0] != ends[1] else (0.0, 1.0))
    speed = joint.velocity if np.isfinite(joint.velocity) and joint.velocity > 0 else 1.0
    return [
        "gripper:                       # as one joint, in its own unit",
        f"  joint: {joint.name}", f"  open: {low:g}                   # {LOOK}: which end is open?",
        f"  closed: {high:g}", f"  max_velocity: {speed:g}              # of that unit a second",
        f"  command_topic: gripper_controller/joint_trajectory   # {LOOK}",
        "  type: joint_trajectory       # or gripper_command, parallel_gripper_command, forward_command",
        "  feedback: true               # whether its joint is among the joint states", "",
    ]  # fmt: skip
