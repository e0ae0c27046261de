"""A lock such as a hardware emergency stop, heard whoever publishes it.

A reliable subscription hears no best-effort publisher; a latched one hears only latched publishers, and any other
misses what was said before it came. So the topic is heard reliably from the start, and once more in the way of each
publisher that appears and offers something else.
"""

from __future__ import annotations

from collections.abc import Callable

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Bool

from udvla_ros.nodes import runtime

RELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.VOLATILE)


class LockTopic:
    """Calls ``heard`` with each value; the same one may come twice."""

    def __init__(self, node: Node, topic: str, heard: Callable[[Bool], None]) -> None:
        self._node, self._topic, self._heard = node, topic, heard
        self._ways: list[QoSProfile] = []
        self._subscribe(RELIABLE)

    def look(self) -> None:
        """Subscribe in the way of each publisher that appeared. Call every half a second or so."""
        for info in self._node.get_publishers_info_by_topic(self._node.resolve_topic_name(self._topic)):
            if info.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT:
                self._subscribe(runtime.ANY_QOS)
            if info.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL:
                self._subscribe(runtime.LATCHED_QOS)

    def _subscribe(self, qos: QoSProfile) -> None:
        if qos not in self._ways:
            self._ways.append(qos)
            self._node.create_subscription(
                Bool, self._topic, self._heard, qos, event_callbacks=runtime.quiet()
            )
