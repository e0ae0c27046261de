"""Bags of a task with a hand and with takeovers, made of nothing, for tests of learning."""

from __future__ import annotations

from pathlib import Path

import synthetic_bag as synthetic
from synthetic_bag import Recording, finished


def demonstrated(folder: Path, sentence: str = "press the button", **options) -> Path:
    """Return an episode that a hand drove."""
    recording = Recording(labels={**synthetic.LABELS, "instruction": sentence}, **options).fill()
    recording.replace("/arbiter/mode", lambda t, m: synthetic.text("TELEOP" if m.data == "POLICY" else m.data))
    return finished(recording, folder)


def taken_over(folder: Path, at: float = 3.0, sentence: str = "press the button") -> Path:
    """Return an episode of the policy's that a hand ended."""
    recording = Recording(labels={**synthetic.LABELS, "instruction": sentence}).fill()
    recording.drop(lambda t, topic, m: topic.startswith("/arbiter/mode"))
    for mode, t in (("POLICY", 0.9), ("TELEOP", at), ("HOLD", 5.4)):
        recording.add(t, "arbiter/mode", "std_msgs/msg/String", synthetic.text(mode))
    recording.messages.sort(key=lambda entry: entry[0])
    return finished(recording, folder)
