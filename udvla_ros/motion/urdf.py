"""What a URDF must say of an arm's joints, looked at before Pinocchio reads it: its words name no mend."""

from __future__ import annotations

import math
import xml.etree.ElementTree as xml
from collections.abc import Sequence
from pathlib import Path

from udvla_ros.errors import ConfigError


def examine(path: Path, joints: Sequence[str]) -> None:
    """Refuse a file that is no URDF, or an arm joint of it without the limits that a moving arm needs.

    Raises:
        ConfigError: one line with the cause and the mend.
    """
    if not path.is_file():
        raise ConfigError(f"urdf: {path} does not exist; give a path relative to the robot file")
    try:
        root = xml.fromstring(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"urdf: {path} cannot be read: {error.strerror or error}") from None
    except (xml.ParseError, ValueError, LookupError) as error:
        raise ConfigError(f"urdf: {path.name} is not XML ({error}); give a URDF") from None
    if any("wiki/xacro}" in str(part.tag) for part in root.iter()):
        raise ConfigError(f"urdf: {path.name} is a xacro; make a URDF of it: xacro {path.name} > {path.stem}.urdf")
    if root.tag != "robot":
        raise ConfigError(f"urdf: {path.name} begins with <{root.tag}>, not <robot>; give a URDF")
    found = {joint.get("name"): joint for joint in root.findall("joint")}
    for name in joints:
        if name not in found:
            raise ConfigError(
                f"joints: {name} is not in {path.name}, which has {', '.join(str(n) for n in found) or 'no joint'}"
            )
        where, kind = f"joints: {name}", found[name].get("type")
        if kind == "continuous":
            raise ConfigError(
                f"{where} is continuous in {path.name}; make it revolute with a limit, as far as its cables let it turn"
            )
        if kind == "prismatic":
            raise ConfigError(f"{where} slides; only turning joints are supported")
        if kind != "revolute":
            raise ConfigError(f"{where} is {kind} in {path.name}; only revolute joints move an arm here")
        limit = found[name].find("limit")
        lacking = [key for key in ("lower", "upper", "velocity") if limit is None or not _number(limit.get(key))]
        if limit is None or lacking:
            raise ConfigError(
                f"{where} has no limit {', '.join(lacking)} in {path.name}; "
                'write <limit lower="..." upper="..." velocity="..." effort="..."/>, rad and rad/s'
            )


def _number(said: str | None) -> bool:
    try:
        return said is not None and math.isfinite(float(said))
    except ValueError:
        return False
