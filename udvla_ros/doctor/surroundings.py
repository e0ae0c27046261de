"""The settings of ROS itself: middleware, domain, discovery, and a transport that does not lose images."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path

from udvla_ros.doctor.report import Finding, fail, ok, warn
from udvla_ros.doctor.snapshot import Snapshot
from udvla_ros.motion.robot import RobotDescription

FASTDDS = "rmw_fastrtps_cpp"
PROFILE = "FASTRTPS_DEFAULT_PROFILES_FILE"
SEGMENT = 4 << 20  # bytes: two VGA frames and room
SHIPPED = "config/fastdds_loopback.xml"


def check(robot: RobotDescription, seen: Snapshot) -> list[Finding]:
    """Judge this process's ROS settings; the other nodes must have the same."""
    env = seen.environment
    rmw = env.get("RMW_IMPLEMENTATION") or FASTDDS
    found = [ok("middleware", f"{rmw}, ROS_DOMAIN_ID {env.get('ROS_DOMAIN_ID') or '0 (unset)'}")]
    found += _domain(env.get("ROS_DOMAIN_ID", ""))
    found += _discovery(env)
    if rmw == FASTDDS:
        found.append(_transport(env))
    else:
        found.append(
            warn("transport", f"{rmw}: not measured here", "watch the cameras' rates above: lost images show there")
        )
    return found


def _domain(text: str) -> list[Finding]:
    if not text:
        return []
    if not text.isdigit() or int(text) > 101:
        return [
            fail(
                "domain",
                f"ROS_DOMAIN_ID is '{text}'",
                "use 0 to 101: higher ports collide with those handed out at random",
            )
        ]
    return []


def _discovery(env: Mapping[str, str]) -> list[Finding]:
    if env.get("ROS_LOCALHOST_ONLY", "0") not in ("", "0"):
        return [warn("discovery", "ROS_LOCALHOST_ONLY is deprecated", "set ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST")]
    reach = env.get("ROS_AUTOMATIC_DISCOVERY_RANGE") or "SUBNET"
    if reach == "LOCALHOST":
        return [ok("discovery", "LOCALHOST: all nodes must run on this machine")]
    return [ok("discovery", f"{reach}: anyone in this domain on the network can write to the arm's topics")]


def _transport(env: Mapping[str, str]) -> Finding:
    path = env.get(PROFILE, "")
    mend = f"export {PROFILE}=<{SHIPPED}>, for the cameras' drivers too"
    if not path:
        return warn("transport", "the default 0.5 MB segment of Fast DDS loses most VGA frames", mend)
    if not Path(path).is_file():
        return fail("transport", f"{PROFILE} names {path}, which does not exist", mend)
    try:
        tags = list(ElementTree.parse(path).iter())
    except ElementTree.ParseError as error:
        return fail("transport", f"{path} is not XML ({error}): Fast DDS ignores it", mend)
    texts = [(tag.text or "").strip() for tag in tags if tag.tag.endswith("segment_size")]
    sizes = [int(text) for text in texts if text.isdigit()]
    if not sizes or max(sizes) < SEGMENT:
        return warn("transport", f"{path} gives shared memory no segment of {SEGMENT >> 20} MB", mend)
    return ok("transport", f"shared memory of {max(sizes) >> 20} MB by {path}")
