"""The operator's one line: who has the arm and why, what the hands do, how fast, what is recorded."""

from __future__ import annotations

import json
from dataclasses import dataclass

ABSENT = "-"


def recorder_line(text: str) -> str:
    """Return what ``recorder_node/status`` (JSON) says, in a few words: its state, and what went wrong."""
    try:
        said = json.loads(text)
        line = str(said["state"])
    except (ValueError, TypeError, KeyError):
        return "?"
    if said.get("seconds") is not None:
        line += f" {said['seconds']:.0f} s"
    if said.get("dropped"):
        line += f" DROPPED {said['dropped']}"
    return f"{line} {said['error']}" if said.get("error") else line


@dataclass
class Status:
    """What the line tells; ``news`` comes first, as it is what the operator asked for last."""

    mode: str = ""
    reason: str = ""
    device: str = ""
    speed: float = 0.0
    recorder: str = ""
    news: str = ""

    def line(self) -> str:
        """Return the line."""
        mode = f"{self.mode} ({self.reason})" if self.reason else self.mode or "no arbiter heard"
        parts = [mode, self.device, f"speed {self.speed:.0%}", f"rec {self.recorder or ABSENT}"]
        return "  ".join(part for part in (*parts, f"| {self.news}" if self.news else "") if part)
