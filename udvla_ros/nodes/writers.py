"""Notices two writers on one topic by the numbers that each gives to its messages.

A writer counts what it publishes, so one writer makes one run of numbers. A second run is a writer that was
started anew, unless the first run goes on: then there are two.
"""

from __future__ import annotations

from typing import Any

from rclpy.node import Node

GAP = 3  # messages that may be lost and still belong to the run
RUNS = 8  # runs remembered


class Runs:
    """Runs of numbers, the newest last: pairs of (last number, time it was heard)."""

    def __init__(self, memory: float) -> None:
        self._memory = memory
        self._runs: list[tuple[int, float]] = []

    def add(self, number: int, now: float) -> bool:
        """Take the number of a message; returns whether an older run went on beside a newer one."""
        runs = [run for run in self._runs if 0.0 <= now - run[1] <= self._memory][-RUNS:]
        fitting = [run for run in runs if 0 < number - run[0] <= GAP]
        own = max(fitting, key=lambda run: run[1], default=None)
        if own is not None:
            runs.remove(own)
        interleaved = own is not None and any(run[1] >= own[1] for run in runs)
        runs.append((number, now))
        self._runs = runs
        return interleaved


class Writers:
    """The writers of one topic. Once two were heard, they count as two until one has left the graph.

    Args:
        memory: s after which a silent run is forgotten.
    """

    def __init__(self, node: Node, topic: str, memory: float = 3.0) -> None:
        self._node, self._topic, self._memory = node, topic, memory
        self._runs = Runs(memory)
        self._two = False

    def hear(self, info: dict[str, Any], now: float) -> str:
        """Take a message's info; returns the line that says there are two writers, or nothing.

        Middleware that does not count messages tells nothing.
        """
        number = info.get("publication_sequence_number")
        if number and self._runs.add(number, now):
            self._two = True
        return self.rivals()

    def rivals(self) -> str:
        """Return the line that says there are two writers, or nothing."""
        if not self._two:
            return ""
        infos = self._node.get_publishers_info_by_topic(self._node.resolve_topic_name(self._topic))
        if len(infos) < 2:
            self._two, self._runs = False, Runs(self._memory)
            return ""
        names = sorted({f"{info.node_namespace.rstrip('/')}/{info.node_name}" for info in infos})
        return f"two writers on {self._topic} ({', '.join(names)}); end one of them, then engage again"
