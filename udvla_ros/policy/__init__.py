"""From an observation to a chunk of actions, and what a robot must offer for it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from udvla_ros.decoding.interface import DecodeOptions
    from udvla_ros.policy.observation import Observation
    from udvla_ros.policy.policy import ActionChunk, Policy

__all__ = ["ActionChunk", "DecodeOptions", "Observation", "Policy"]

_HOMES = {
    "ActionChunk": "udvla_ros.policy.policy",
    "DecodeOptions": "udvla_ros.decoding.interface",
    "Observation": "udvla_ros.policy.observation",
    "Policy": "udvla_ros.policy.policy",
}


def __getattr__(name: str) -> Any:
    """Import torch with the policy and not before: the guards beside it need none."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
