"""The demo's client once more, that also notes what must not change over time."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from udvla_ros.motion.robot import RobotDescription
from udvla_ros.nodes import runtime
from udvla_ros.proving.bench.soak import Record
from udvla_ros.proving.rigs.demo_client import DemoClient

CLIENT = "this client"
SAMPLE = 1.0  # s between two looks at the memory
# Every command counts here, also those that come while this process is busy.
EVERY_QOS = QoSProfile(depth=2000, reliability=ReliabilityPolicy.RELIABLE)


class SoakClient(DemoClient):
    """Operates the sim graph and keeps a :class:`~udvla_ros.proving.bench.soak.Record`.

    Args:
        robot: see :class:`DemoClient`.
        health: see :class:`DemoClient`; looked at while waiting.
        pids: of the graph's processes, whose memory is watched, by name.
        context: rclpy context.
    """

    def __init__(
        self, robot: RobotDescription, health: Callable[[], str], pids: Mapping[str, int], context: rclpy.Context
    ) -> None:
        self.record = Record(beside=frozenset({CLIENT}))
        self._began = time.monotonic()
        self._sampled = -SAMPLE
        super().__init__(robot, health=lambda: self._sampled_health(health, pids), context=context)
        self._stamp0: float | None = None
        self.node.create_subscription(JointState, "arbiter/command", self._on_command, EVERY_QOS)

    def elapsed(self) -> float:
        """Return the seconds since it joined."""
        return time.monotonic() - self._began

    def _sampled_health(self, health: Callable[[], str], pids: Mapping[str, int]) -> str:
        now = self.elapsed()
        if now - self._sampled >= SAMPLE:
            self._sampled = now
            self.record.sample(now, {**pids, CLIENT: os.getpid()})
        return health()

    def _on_chunk(self, message: String) -> None:
        super()._on_chunk(message)
        self.record.chunks.append((self.elapsed(), json.loads(message.data)["timings_ms"]))

    def _on_command(self, message: JointState) -> None:
        stamp = runtime.to_seconds(message.header.stamp)
        if self._stamp0 is None:
            self._stamp0 = stamp - self.elapsed()
        self.record.commands.append(stamp - self._stamp0)


@contextmanager
def joined(
    robot: RobotDescription, health: Callable[[], str], pids: Mapping[str, int]
) -> Iterator[SoakClient]:
    """Join the graph of this process's ROS environment for the length of a block."""
    context = rclpy.Context()
    rclpy.init(context=context)
    client = SoakClient(robot, health, pids, context)
    try:
        yield client
    finally:
        client.close()
        rclpy.try_shutdown(context=context)
