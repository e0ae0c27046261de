"""What a URDF says of an arm: its chain of joints, where it ends, and the gripper behind it."""

from __future__ import annotations

import xml.etree.ElementTree as xml
from collections.abc import Sequence
from dataclasses import dataclass

from udvla_ros.errors import ConfigError

TURNING = ("revolute", "continuous")
MOVING = (*TURNING, "prismatic")
# Ends of links' names, the most telling first.
TIPS = (
    "tcp", "grasp_frame", "gripper_frame_link", "ee_link", "end_effector", "link_eef", "link_tcp", "tool0", "flange",
)  # fmt: skip


@dataclass(frozen=True)
class Joint:
    """One joint of a URDF; limits as written, NaN where it says nothing; ``mimics`` names the joint it follows."""

    name: str
    kind: str
    parent: str
    child: str
    lower: float
    upper: float
    velocity: float
    mimics: str


@dataclass(frozen=True)
class Arm:
    """The joints from ``base`` to ``tcp`` that turn, and the joint of the gripper, if one is found."""

    name: str
    base: str
    tcp: str
    joints: tuple[Joint, ...]
    gripper: Joint | None


def arm_of(urdf: bytes, base: str = "", tcp: str = "") -> Arm:
    """Find the arm in a URDF: the chain with the most turning joints, ended at the most telling of its links.

    Args:
        base, tcp: links, where the choice shall not be this function's.

    Raises:
        ConfigError: it is no URDF, lacks a link that was named, or no joint of it turns.
    """
    try:
        root = xml.fromstring(urdf)
    except (xml.ParseError, ValueError, LookupError) as error:
        raise ConfigError(f"the robot's description is not XML ({error}); give a URDF") from None
    if any("wiki/xacro}" in str(part.tag) for part in root.iter()):
        raise ConfigError("the robot's description is a xacro; make a URDF of it first: xacro FILE > my_arm.urdf")
    if root.tag != "robot":
        raise ConfigError(f"the robot's description begins with <{root.tag}>, not <robot>; give a URDF")
    joints = [_joint(part) for part in root.findall("joint")]
    links = [str(link.get("name")) for link in root.findall("link")]
    above = {joint.child: joint for joint in joints}
    for what, name in (("--base", base), ("--tcp", tcp)):
        if name and name not in links:
            raise ConfigError(f"{what} {name} is no link of the URDF, which has {', '.join(links)}")
    chains = {link: _chain(link, above, base) for link in ([tcp] if tcp else links)}
    longest = max((_turning(chain) for chain in chains.values()), default=0)
    if not longest:
        raise ConfigError("no joint of the URDF turns between --base and --tcp; name the links of your arm")
    ends = [link for link, chain in chains.items() if _turning(chain) == longest and not _slides(chain)]
    if not ends:
        raise ConfigError("the arm has a sliding joint; only turning joints are supported: name --base beyond it")
    # The arm ends where its last joint does; behind it the most telling name, else what lies furthest behind.
    end = min(ends, key=lambda link: (_rank(link), -len(chains[link])))
    chain = chains[end]
    if not tcp:
        chain, end = _without_fingers(chain, end, chains, joints)
    arm = [joint for joint in chain if joint.kind in TURNING]
    mine = {joint.name for joint in arm}
    below = {arm[-1].child}
    gripper = None
    for _ in joints:
        below |= {joint.child for joint in joints if joint.parent in below}
    for joint in joints:
        if joint.kind in MOVING and not joint.mimics and joint.name not in mine and joint.parent in below:
            gripper = joint
            break
    start = base or chain[0].parent
    return Arm(str(root.get("name", "arm")), start, end, tuple(arm), gripper)


def _without_fingers(
    chain: Sequence[Joint], end: str, chains: dict[str, list[Joint]], joints: Sequence[Joint]
) -> tuple[list[Joint], str]:
    """Leave out a turning finger at the end of the longest chain: one that others follow, or that is called so."""
    turning = [joint for joint in chain if joint.kind in TURNING]
    last = turning[-1]
    words = ("finger", "knuckle", "gripper", "jaw", "claw")
    followed = any(joint.mimics == last.name for joint in joints)
    if len(turning) > 1 and (followed or any(word in last.name.lower() for word in words)):
        shorter = [link for link, c in chains.items() if _turning(c) == len(turning) - 1 and not _slides(c)]
        shorter = [link for link in shorter if turning[-2] in chains[link]]
        end = min(shorter, key=lambda link: (_rank(link), -len(chains[link])))
        return _without_fingers(chains[end], end, chains, joints)
    return list(chain), end


def _joint(part: xml.Element) -> Joint:
    limit = part.find("limit")

    def number(key: str) -> float:
        try:
            return float(limit.get(key, "nan")) if limit is not None else float("nan")
        except ValueError:
            return float("nan")

    parent, child, mimic = part.find("parent"), part.find("child"), part.find("mimic")
    if parent is None or child is None:
        raise ConfigError(f"joint {part.get('name')} of the URDF has no parent or child")
    return Joint(
        str(part.get("name")), str(part.get("type")), str(parent.get("link")), str(child.get("link")),
        number("lower"), number("upper"), number("velocity"), "" if mimic is None else str(mimic.get("joint")),
    )  # fmt: skip


def _chain(link: str, above: dict[str, Joint], base: str) -> list[Joint]:
    chain: list[Joint] = []
    while link in above and link != base and len(chain) <= len(above):
        chain.append(above[link])
        link = above[link].parent
    return chain[::-1]


def _turning(chain: Sequence[Joint]) -> int:
    return sum(joint.kind in TURNING and not joint.mimics for joint in chain)


def _slides(chain: Sequence[Joint]) -> bool:
    return any(joint.kind == "prismatic" or bool(joint.mimics) for joint in chain)


def _rank(link: str) -> int:
    return next((k for k, tip in enumerate(TIPS) if link.lower().endswith(tip)), len(TIPS))
