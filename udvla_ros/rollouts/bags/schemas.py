"""Message definitions and type hashes, from the files that every ROS 2 message package installs.

Foxglove and every other reader decode an MCAP file by the definitions it carries: the ``.msg`` text of the type and
of all types in it, in the form that rosbag2 writes (schema encoding ``ros2msg``).
"""

from __future__ import annotations

import json
import os
import re
import sys
from functools import cache
from pathlib import Path

LINE = "=" * 80
PRIMITIVES = frozenset(
    {
        "bool", "byte", "char", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64",
        "uint64", "string", "wstring",
    }
)  # fmt: skip


def _prefixes() -> list[Path]:
    found = [Path(prefix) for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    return [*found, Path(sys.prefix)]


def _installed(kind: str, ending: str) -> str | None:
    """Return the text of the file that a package installs for a type; None where there is none."""
    package, _, name = kind.partition("/")
    name = name.rpartition("/")[2]
    for prefix in _prefixes():
        path = prefix / "share" / package / "msg" / f"{name}{ending}"
        if path.is_file():
            return path.read_text(encoding="utf-8")
    return None


def dependencies(package: str, text: str) -> list[str]:
    """Return the types ``package/Name`` that a definition uses, in order, each once."""
    found: dict[str, None] = {}
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if not words:
            continue
        kind = re.split(r"[\[<]", words[0])[0]
        if kind in PRIMITIVES:
            continue
        if kind == "Header":
            kind = "std_msgs/Header"
        parts = kind.split("/")
        found[f"{parts[0]}/{parts[-1]}" if len(parts) > 1 else f"{package}/{kind}"] = None
    return list(found)


@cache
def definition(kind: str) -> str:
    """Return the definition of a type with those of all types in it; empty if one is not installed here.

    Args:
        kind: such as ``sensor_msgs/msg/JointState``.
    """
    text = _installed(kind, ".msg")
    if text is None:
        return ""
    parts, seen = [text], set()
    waiting = dependencies(kind.partition("/")[0], text)
    while waiting:
        needed = waiting.pop(0)
        if needed in seen:
            continue
        seen.add(needed)
        text = _installed(needed, ".msg")
        if text is None:
            return ""
        parts.append(f"{LINE}\nMSG: {needed}\n{text}")
        waiting += dependencies(needed.partition("/")[0], text)
    return "\n".join(part.rstrip("\n") for part in parts) + "\n"


@cache
def type_hash(kind: str) -> str:
    """Return the ``RIHS01_...`` hash of a type; empty if it is not installed here."""
    text = _installed(kind, ".json")
    hashes = json.loads(text)["type_hashes"] if text else []
    return next((row["hash_string"] for row in hashes if row["type_name"] == kind), "")
