"""The one who measures a recorder: starts and stops the load and the recording, and listens to the arbiter."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from std_msgs.msg import String
from std_srvs.srv import Trigger

from udvla_ros.errors import UdvlaError
from udvla_ros.nodes import runtime
from udvla_ros.nodes.taps import Taps
from udvla_ros.proving.bench.recorder_bench import Phase
from udvla_ros.rollouts.bags.topics import Wanted

COMMAND = "/arbiter/command"


class LoadFailed(UdvlaError):
    """A node of the measurement does not answer, or refuses."""

    exit_code = 1


class LoadClient:
    """A node of its own; ``plays`` are the names of the load nodes, ``health`` says what broke, if anything."""

    def __init__(self, plays: Sequence[str], health: Callable[[], str], context: rclpy.Context) -> None:
        self._plays, self._health = plays, health
        self.node = rclpy.create_node("load_client", context=context)
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self.node)
        self._clients: dict[str, Any] = {}
        self.status: dict[str, Any] = {}
        self._phase: Phase | None = None
        # Emptied by polling, so that listening costs the same little with and without a recorder.
        self._taps = Taps(self.node, [Wanted((COMMAND,))], self.node.get_logger().warning)
        self.node.create_subscription(String, "recorder_node/status", self._on_status, runtime.LATCHED_QOS)

    def _on_status(self, message: String) -> None:
        self.status = json.loads(message.data)

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = 30.0) -> None:
        """Spin until a condition holds.

        Raises:
            LoadFailed: it does not within that time, or the graph broke.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            if broken := self._health():
                raise LoadFailed(broken)
            if time.monotonic() > deadline:
                raise LoadFailed(f"waited {seconds:g} s for {what}; see the logs of the nodes")
            self._executor.spin_once(timeout_sec=0.05)
            self._listen()

    def _listen(self) -> None:
        self._taps.survey()
        for sample in self._taps.drain():
            if self._phase is not None:
                self._phase.commands.append(sample.received)

    def trigger(self, service: str) -> str:
        """Call a Trigger service; returns its message.

        Raises:
            LoadFailed: it refuses, or does not answer.
        """
        client = self._clients.setdefault(service, self.node.create_client(Trigger, service))
        self.wait(client.service_is_ready, f"the service {service}")
        future = client.call_async(Trigger.Request())
        self.wait(future.done, f"an answer of {service}")
        answer = future.result()
        if not answer.success:
            raise LoadFailed(f"{service}: {answer.message}")
        return answer.message

    def begin(self) -> None:
        """Start the load."""
        for name in self._plays:
            self.trigger(f"{name}/begin")

    def end(self) -> dict[str, int]:
        """Stop it; returns what was published, by topic."""
        published: dict[str, int] = {}
        for name in self._plays:
            published |= json.loads(self.trigger(f"{name}/end"))
        return published

    def run_phase(self, seconds: float, pids: dict[str, int], progress: Callable[[float], object]) -> Phase:
        """Let the load run for so long and return what happened."""
        self.begin()
        self._taps.survey()
        self.wait(lambda: self._taps.counts().get(COMMAND), "a command of the arbiter")
        self._taps.drain()
        self._phase = phase = Phase()
        began = last = time.monotonic()
        phase.note_cpu(0.0, pids)
        while (now := time.monotonic()) < began + seconds:
            if broken := self._health():
                raise LoadFailed(broken)
            self._executor.spin_once(timeout_sec=min(0.1, began + seconds - now))
            self._listen()
            if time.monotonic() >= last + 1.0:
                progress(time.monotonic() - last)
                last = time.monotonic()
                phase.note_cpu(last - began, pids)
        phase.note_cpu(time.monotonic() - began, pids)
        phase.seconds = time.monotonic() - began
        self._phase = None
        phase.published = self.end()
        return phase

    def close(self) -> None:
        """Leave the graph."""
        self._executor.remove_node(self.node)
        self.node.destroy_node()
        self._executor.shutdown()


@contextmanager
def joined(plays: Sequence[str], health: Callable[[], str]) -> Iterator[LoadClient]:
    """Join the graph of this process's ROS environment for the length of a block."""
    context = rclpy.Context()
    rclpy.init(context=context)
    client = LoadClient(plays, health, context)
    try:
        yield client
    finally:
        client.close()
        rclpy.try_shutdown(context=context)
