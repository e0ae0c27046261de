"""A recorder and what it records, as real processes: what tests of it share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from udvla_ros import graph
from udvla_ros.bringup import Bringup

CAMERAS, JOINTS = ("/front/image_raw", "/wrist/image_raw"), "/joint_states"


def recorder(folder: Path, **parameters: object) -> graph.ResolvedNode:
    """Return a recorder that leaves its bags in a folder."""
    given = {"record_dir": str(folder), "min_free_mb": 10, "extra_topics": "/counted/text", **parameters}
    return graph.ResolvedNode("recorder_node", "udvla_ros.nodes.recorder_node", "recorder_node", parameters=given)


def load(plays: str, **parameters: object) -> graph.ResolvedNode:
    """Return something that publishes and counts."""
    name = f"load_{plays}"
    return graph.ResolvedNode(
        "load_node", "udvla_ros.proving.rigs.load_node", name, parameters={"plays": plays, **parameters}
    )


class Recorder:
    """The running recorder as a test sees it."""

    def __init__(self, bringup: Bringup, probe: Any, folder: Path) -> None:
        from std_msgs.msg import String

        from udvla_ros.nodes import runtime

        self.bringup, self.probe, self.folder = bringup, probe, folder
        self._heard: list[Any] = probe.hear(String, "recorder_node/status", runtime.LATCHED_QOS)

    @property
    def status(self) -> dict:
        """The last status."""
        return json.loads(self._heard[-1].data) if self._heard else {}

    def until(self, condition: Any, what: str) -> None:
        """Wait until the status fulfils a condition."""
        self.probe.until(lambda: self.status and condition(self.status), f"{what} (status: {self.status})")

    def call(self, name: str) -> str:
        """Call a service that must succeed; returns its message."""
        answer = self.probe.call(f"recorder_node/{name}")
        assert answer.success, answer.message
        return answer.message

    def refused(self, name: str) -> str:
        """Call a service that must be refused; returns why."""
        answer = self.probe.call(f"recorder_node/{name}")
        assert not answer.success
        return answer.message

    def meet(self, *plays: str, topics: Sequence[str] = ()) -> None:
        """Let something publish until the recorder has heard all of it, and stop it."""
        wanted = set(topics)
        self.begin(*plays)
        self.until(lambda said: all(said["topics"].get(name) for name in wanted), f"messages of {wanted}")
        self.end(*plays)

    def begin(self, *plays: str) -> None:
        """Let something publish."""
        for name in plays:
            assert self.probe.call(f"load_{name}/begin").success

    def end(self, *plays: str) -> dict[str, int]:
        """Let it stop; returns what it published by topic."""
        published: dict[str, int] = {}
        for name in plays:
            published |= json.loads(self.probe.call(f"load_{name}/end").message)
        return published

    def forget(self) -> None:
        """Forget the status of a recorder that is no more."""
        self._heard.clear()
