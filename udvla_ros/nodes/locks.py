"""A lock such as a hardware emergency stop, heard whoever publishes it.

A reliable subscription hears no best-effort publisher; a latched one hears only latched publishers, and any other
misses what was said before it came. So the topic is heard reliably from the start, and once more in the way of each
publisher that appears and offers something else.
"""

from __future__ import annotations

from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Bool

from udvla_ros.nodes import runtime
from udvla_ros.nodes.polled import Polled

RELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.VOLATILE)


class LockTopic:
    """What was said on a topic; the same value may come twice."""

    def __init__(self, node: Node, topic: str, kind: Any = Bool) -> None:
        self._node, self._topic, self._kind = node, topic, kind
        self._ways: list[tuple[QoSProfile, Polled]] = []
        self._subscribe(RELIABLE)

    def look(self) -> bool:
        """Subscribe in the way of each publisher that appeared; returns whether there is any. Call now and then."""
        infos = self._node.get_publishers_info_by_topic(self._node.resolve_topic_name(self._topic))
        for info in infos:
            if info.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT:
                self._subscribe(runtime.ANY_QOS)
            if info.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL:
                self._subscribe(runtime.LATCHED_QOS)
        return bool(infos)

    def take(self) -> list[Any]:
        """Return the values that came since the last call, by way of each kind of publisher."""
        return [message.data for way in self._ways for message, _ in way[1].messages()]

    def _subscribe(self, qos: QoSProfile) -> None:
        if all(known != qos for known, _ in self._ways):
            self._ways.append((qos, Polled(self._node, self._kind, self._topic, qos)))
