"""The parameter file that ``policy_node`` takes: the chosen knobs, and in its head what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from udvla_ros.decoding.interface import DecodeOptions
from udvla_ros.policy.knobs import parameters_of


def text(chosen: Mapping[str, Any], runtime: Mapping[str, Any], heading: Sequence[str]) -> str:
    """Return the file's contents.

    Args:
        chosen: row of the report; its ``options`` are written.
        runtime: parameters that say how inference runs here (``threads``, ``dtype``, ...).
        heading: lines of comment.
    """
    options = DecodeOptions(**chosen["options"])
    lines = [*(f"# {line}" for line in heading), "/**/policy_node:", "  ros__parameters:"]
    lines += [f"    {name}: {_yaml(value)}" for name, value in {**parameters_of(options), **runtime}.items()]
    return "\n".join(lines) + "\n"


def write(path: Path, contents: str) -> Path:
    """Write the file; a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_text(contents, encoding="utf-8")
    beside.replace(path)
    return path


def _yaml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else repr(value)
