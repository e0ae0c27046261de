"""Messages taken when they are wanted, not when they come.

A driver publishes joint states at up to 1 kHz and the arbiter looks at them at 100 Hz. To be woken for each message
would cost several times what everything else does.
"""

from __future__ import annotations

from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import JointState

from udvla_ros.nodes import runtime

# Who published a message: frame and the first names, after the encapsulation header and the stamp.
NAMES = slice(12, 108)


class _Never(CallbackGroup):
    """Keeps the executor from waiting for what is polled."""

    def can_execute(self, entity: object) -> bool:
        return False

    def beginning_execution(self, entity: object) -> bool:
        return False

    def ending_execution(self, entity: object) -> None:
        pass


class Polled:
    """A subscription that wakes nobody."""

    def __init__(self, node: Node, kind: Any, topic: str, qos: QoSProfile) -> None:
        self._kind = kind
        self._subscription = node.create_subscription(
            kind, topic, lambda message: None, qos, callback_group=_Never(), raw=True, event_callbacks=runtime.quiet()
        )

    def take(self) -> list[tuple[bytes, dict[str, Any]]]:
        """Return what came since the last call: raw, with the middleware's information."""
        taken, handle = [], self._subscription.handle
        with handle:
            while (one := handle.take_message(self._kind, True)) is not None:
                taken.append((bytes(one[0]), one[1]))
        return taken

    def messages(self) -> list[tuple[Any, dict[str, Any]]]:
        """Return what came since the last call."""
        return [(deserialize_message(data, self._kind), info) for data, info in self.take()]


class PolledJointStates:
    """The newest joint states of each publisher of a topic; arm and gripper are often published apart."""

    def __init__(self, node: Node, topic: str) -> None:
        self._polled = Polled(node, JointState, topic, runtime.ANY_QOS)

    def take(self) -> list[JointState]:
        """Return what came since the last call, of each publisher only the newest."""
        newest = {(len(data), data[NAMES]): data for data, _ in self._polled.take()}
        return [deserialize_message(data, JointState) for data in newest.values()]
