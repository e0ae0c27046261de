"""What the page may ask for: services and parameters that everybody has, and a sentence. Nothing here moves a joint."""

from __future__ import annotations

import math
from typing import Any

from udvla_ros.errors import UdvlaError
from udvla_ros.policy.knobs import KNOBS

SERVICES = {
    "engage_policy": "arbiter_node/engage_policy", "hold": "arbiter_node/hold", "stop": "arbiter_node/stop",
    "reset": "arbiter_node/reset", "record": "recorder_node/start", "success": "recorder_node/stop_success",
    "failure": "recorder_node/stop_failure", "discard": "recorder_node/discard",
    "snapshot": "recorder_node/snapshot", "new_episode": "sim_node/reset",
}  # fmt: skip
PARAMETERS = {
    "policy_node": (
        *(knob.name for knob in KNOBS), "execute_steps", "monitor", "monitor_threshold", "monitor_patience",
    ),
    "arbiter_node": ("speed",),
}  # fmt: skip
# JSON does not tell 1 from 1.0, and parameters do.
DECIMAL = {*(knob.name for knob in KNOBS if isinstance(knob.default, float)), "monitor_threshold", "speed"}
LONGEST = 200  # characters of a sentence


class NotAllowed(UdvlaError):
    """The page asked for what it may not have."""


def checked(asked: Any) -> dict[str, Any]:
    """Return what was asked for, if it may be: ``{"do": service}``, ``{"say": text}`` or ``{"set": ..., "of": node}``.

    Raises:
        NotAllowed: it may not.
    """
    if not isinstance(asked, dict):
        raise NotAllowed("ask with an object: do, say or set")
    if set(asked) == {"do"} and isinstance(asked["do"], str) and asked["do"] in SERVICES:
        return asked
    if set(asked) == {"say"} and isinstance(asked["say"], str):
        text = " ".join(asked["say"].split())
        if not 0 < len(text) <= LONGEST or not text.isprintable():
            raise NotAllowed(f"a sentence has 1 to {LONGEST} characters")
        return {"say": text}
    if set(asked) == {"set", "of", "to"} and isinstance(asked["of"], str) and isinstance(asked["set"], str):
        value = asked["to"]
        known = asked["set"] in PARAMETERS.get(asked["of"], ())
        plain = isinstance(value, (bool, int, float)) or (isinstance(value, str) and len(value) <= LONGEST)
        if known and plain and (not isinstance(value, (int, float)) or math.isfinite(value)):
            decimal = asked["set"] in DECIMAL and type(value) is int
            return asked | {"to": float(value)} if decimal else asked
    raise NotAllowed("the page may call services and set knobs, and nothing else; see docs/console.md")
