"""What tests of running nodes share: a probe on the graph that waits for events, with deadlines, never sleeps."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import rclpy
from rcl_interfaces.srv import GetParameters
from rclpy.executors import SingleThreadedExecutor
from std_srvs.srv import Trigger

from udvla_ros.nodes import runtime, services

TESTS = Path(__file__).parent
T = TypeVar("T")


def environment(**more: str) -> dict[str, str]:
    """Return the environment for nodes under test: this process's domain, and the modules beside this file."""
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}


def skip_where_time_is_not_real() -> None:
    """Skip a test that needs real time where other work asks for more than twice the cores there are."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > 2.0 * cores:
        pytest.skip(f"load {load:.1f} on {cores} cores: nothing runs in real time now")


class Probe:
    """A node of the test's own: hears topics, calls services, publishes, all on one executor."""

    def __init__(self, name: str = "probe", context: rclpy.Context | None = None) -> None:
        self.node = rclpy.create_node(name, context=context)
        self.heard: dict[str, list[Any]] = defaultdict(list)
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self.node)
        self._clients: dict[str, Any] = {}

    def hear(self, kind: Any, topic: str, qos: Any = runtime.STATE_QOS) -> list[Any]:
        """Subscribe; returns the list that fills with the messages."""
        self.node.create_subscription(kind, topic, self.heard[topic].append, qos)
        return self.heard[topic]

    def publisher(self, kind: Any, topic: str, qos: Any = runtime.COMMAND_QOS) -> Any:
        """Return a publisher, once somebody listens."""
        publisher = self.node.create_publisher(kind, topic, qos)
        self.until(lambda: publisher.get_subscription_count() > 0, f"a subscriber of {topic}", 15.0)
        return publisher

    def now(self) -> float:
        """Return ROS time in seconds."""
        return runtime.now(self.node)

    def until(self, condition: Callable[[], T], what: str, timeout: float = 30.0) -> T:
        """Spin until the condition holds and return its value; fails the test at the deadline."""
        deadline = time.monotonic() + timeout
        while True:
            value = condition()
            if value:
                return value
            left = deadline - time.monotonic()
            assert left > 0, f"waited {timeout:g} s for {what}"
            self._executor.spin_once(timeout_sec=min(left, 0.05))

    def call(self, service: str, timeout: float = 30.0) -> Trigger.Response:
        """Call a Trigger service and return its answer; asks again where DDS has lost it (``services.ask``)."""
        client = self._clients.setdefault(service, self.node.create_client(Trigger, service))
        self.until(client.service_is_ready, f"service {service}", timeout)
        answer = services.ask(client, Trigger.Request(), self._until_or_late)
        assert answer is not None, f"{service} was asked {services.ATTEMPTS} times and never answered"
        return answer

    def be_known_to(self, name: str, timeout: float = 30.0) -> None:
        """Return once a node answers: what was subscribed here before is known there, and none of it is missed."""
        client = self.node.create_client(GetParameters, f"{name}/get_parameters")
        self.until(client.service_is_ready, f"the parameters of {name}", timeout)
        answer = services.ask(client, GetParameters.Request(names=["use_sim_time"]), self._until_or_late)
        assert answer is not None, f"{name} never answered"

    def _until_or_late(self, condition: Callable[[], bool], seconds: float) -> None:
        """Spin until the condition holds or the time is over."""
        deadline = time.monotonic() + seconds
        while not condition() and (left := deadline - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=min(left, 0.05))

    def close(self) -> None:
        """Leave the graph."""
        self._executor.remove_node(self.node)
        self.node.destroy_node()
        self._executor.shutdown()


@contextmanager
def ros() -> Iterator[Probe]:
    """Bring up a probe for the length of a block, in a context of its own."""
    context = rclpy.Context()
    rclpy.init(context=context)
    probe = Probe(context=context)
    try:
        yield probe
    finally:
        probe.close()
        rclpy.try_shutdown(context=context)
