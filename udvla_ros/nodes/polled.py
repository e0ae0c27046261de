"""Joint states taken when they are wanted, not when they come.

A driver publishes them at up to 1 kHz and the arbiter looks at them at 100 Hz. To be woken for each would cost
several times what everything else does.
"""

from __future__ import annotations

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
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


class PolledJointStates:
    """The newest joint states of each publisher of a topic; arm and gripper are often published apart."""

    def __init__(self, node: Node, topic: str) -> None:
        self._subscription = node.create_subscription(
            JointState, topic, lambda message: None, runtime.ANY_QOS, callback_group=_Never(), raw=True,
            event_callbacks=runtime.quiet(),
        )  # fmt: skip

    def take(self) -> list[JointState]:
        """Return what came since the last call, of each publisher only the newest."""
        newest: dict[tuple[int, bytes], bytes] = {}
        handle = self._subscription.handle
        with handle:
            while (taken := handle.take_message(JointState, True)) is not None:
                data = bytes(taken[0])
                newest[len(data), data[NAMES]] = data
        return [deserialize_message(data, JointState) for data in newest.values()]
