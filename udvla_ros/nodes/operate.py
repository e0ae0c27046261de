"""The operator's words to a running graph: what ``udvla say``, ``engage``, ``hold``, ... are made of."""

from __future__ import annotations

import difflib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import DescribeParameters, ListParameters, SetParametersAtomically
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter, parameter_value_to_python
from std_msgs.msg import String
from std_srvs.srv import Trigger

from udvla_ros.errors import ConfigError, UdvlaError
from udvla_ros.nodes import runtime, services

FOUND = 5.0  # s in which a running graph is found
TOLD = ("arbiter/mode", "arbiter/mode_reason", "instruction", "sim_node/episode", "recorder_node/status")
SEEN = 0.3  # s after which the arbiter has surely measured the arm where a new scene put it
_READ: dict[int, Callable[[str], Any]] = {
    ParameterType.PARAMETER_INTEGER: int,
    ParameterType.PARAMETER_DOUBLE: float,
    ParameterType.PARAMETER_STRING: str,
    ParameterType.PARAMETER_BOOL: lambda text: {"true": True, "false": False}[text.lower()],
}
_WORD = {2: "a whole number", 3: "a number", 4: "a text", 1: "true or false"}


class NotThere(UdvlaError):
    """Nobody answers."""

    exit_code = 1


class Refused(UdvlaError):
    """The graph was asked, and said no."""

    exit_code = 1


class Operator:
    """A short visit to the graph: asks, hears, leaves.

    Args:
        namespace: of the graph's nodes.
        context: rclpy context.
    """

    def __init__(self, namespace: str = "", context: rclpy.Context | None = None) -> None:
        self.node = Node(
            "udvla_operator", namespace=namespace or None, context=context, use_global_arguments=False,
            enable_rosout=False, start_parameter_services=False,
        )  # fmt: skip
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self.node)
        self._clients: dict[str, Any] = {}
        self.heard: dict[str, str] = {}
        self.values: dict[str, dict[str, str]] = {}
        self.levels: dict[str, tuple[int, str]] = {}

    def listen(self) -> None:
        """Begin to hear the latched topics of :data:`TOLD` and the diagnostics."""
        for topic in TOLD:
            self.node.create_subscription(String, topic, partial(self._on_text, topic), runtime.LATCHED_QOS)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 50)

    def _on_text(self, topic: str, message: String) -> None:
        self.heard[topic] = message.data

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.values[status.name] = {value.key: value.value for value in status.values}
            self.levels[status.name] = int.from_bytes(status.level, "little"), status.message

    def wait(self, condition: Callable[[], Any], seconds: float) -> Any:
        """Spin until the condition holds and return its value, or None when the time is over."""
        deadline = time.monotonic() + seconds
        while True:
            value = condition()
            if value:
                return value
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self._executor.spin_once(timeout_sec=min(left, 0.05))

    def ask(self, kind: Any, service: str, request: Any) -> Any:
        """Return the answer of a service.

        Raises:
            NotThere: nobody offers it, or no answer comes.
        """
        if service not in self._clients:
            self._clients[service] = self.node.create_client(kind, service)
        client = self._clients[service]
        if not self.wait(client.service_is_ready, FOUND):
            raise NotThere(
                f"nobody offers {service}: is the graph running, in this ROS_DOMAIN_ID and namespace? "
                "for the simulated arm add --sim"
            )
        answer = services.ask(client, request, self.wait)
        if answer is None:
            raise NotThere(f"{service} does not answer; see the log of its node")
        return answer

    def trigger(self, service: str) -> str:
        """Call a Trigger service and return what it says.

        Raises:
            Refused: it says no.
        """
        answer = self.ask(Trigger, service, Trigger.Request())
        if not answer.success:
            way_out = "; first: udvla reset" if "STOPPED" in answer.message else ""
            raise Refused((answer.message or f"{service} refused") + way_out)
        return answer.message

    def say(self, sentence: str) -> int:
        """Publish the sentence, as latched; returns how many nodes have taken it.

        Raises:
            ConfigError: there is none.
            NotThere: nobody listens.
        """
        if not sentence.strip():
            raise ConfigError('the sentence is empty; say what to do: udvla say "pick up the red cube"')
        publisher = self.node.create_publisher(String, "instruction", runtime.LATCHED_QOS)
        listeners = self.wait(publisher.get_subscription_count, FOUND)
        if not listeners:
            raise NotThere("nobody listens on instruction: is policy_node running? for the simulated arm add --sim")
        self.wait(lambda: publisher.get_subscription_count() > listeners, 0.5)  # discovery finds them one by one
        publisher.publish(String(data=sentence))
        publisher.wait_for_all_acked(Duration(seconds=2.0))
        return int(publisher.get_subscription_count())

    def set(self, node: str, texts: Mapping[str, str]) -> dict[str, Any]:
        """Set parameters of a node, all or none, read as what they are declared to be; returns their values.

        Raises:
            ConfigError: the node has no such parameter, or the text is none of its values.
            Refused: the node says no.
        """
        names = list(texts)
        described = self.ask(
            DescribeParameters, f"{node}/describe_parameters", DescribeParameters.Request(names=names)
        ).descriptors
        if len(described) != len(names) or any(d.type == ParameterType.PARAMETER_NOT_SET for d in described):
            listed = self.ask(ListParameters, f"{node}/list_parameters", ListParameters.Request())
            unknown = [name for name in names if name not in listed.result.names]
            near = difflib.get_close_matches(unknown[0], listed.result.names, 3) if unknown else []
            known = ", ".join(near or sorted(n for n in listed.result.names if "." not in n and n != "use_sim_time"))
            raise ConfigError(f"{node} has no parameter {', '.join(unknown)}; {'near' if near else 'known'}: {known}")
        values = {d.name: self._read(d.name, d.type, texts[d.name]) for d in described}
        request = SetParametersAtomically.Request()
        request.parameters = [Parameter(n, value=v).to_parameter_msg() for n, v in values.items()]
        result = self.ask(SetParametersAtomically, f"{node}/set_parameters_atomically", request).result
        if not result.successful:
            raise Refused(f"{node} keeps what it has: {result.reason}")
        return {p.name: parameter_value_to_python(p.value) for p in request.parameters}

    @staticmethod
    def _read(name: str, kind: int, text: str) -> Any:
        try:
            return _READ[kind](text)
        except (KeyError, ValueError):
            raise ConfigError(f"{name}={text}: {name} is {_WORD.get(kind, 'a list')}") from None

    def scene(self, **values: Any) -> dict[str, Any]:
        """Stop the simulated arm, set a new scene and let the arm go again, in HOLD; returns what the scene is.

        Args:
            values: ``seed``, ``task`` and ``instruction`` of sim_node, as texts; what is left out stays.
        """
        self.listen()
        self.trigger("arbiter_node/stop")
        self.set("sim_node", {name: str(value) for name, value in values.items() if value is not None})
        told: dict[str, Any] = json.loads(self.trigger("sim_node/reset_episode"))
        # A reset from joint states of before the scene changed would send the arm back to where it was.
        self.wait(lambda: False, SEEN)
        self.trigger("arbiter_node/reset")
        return told

    def status(self, seconds: float = 6.0) -> dict[str, Any]:
        """Return mode, reason, instruction, scene, recorder and each node's diagnostic line.

        Raises:
            NotThere: no arbiter is heard.
        """
        self.listen()
        nodes = ("arbiter_node", "policy_node")
        heard = lambda: "arbiter/mode" in self.heard and all(n in self.values for n in nodes)  # noqa: E731
        self.wait(heard, seconds)
        if "arbiter/mode" not in self.heard:
            raise NotThere(
                f"no arbiter_node is heard within {seconds:g} s: is the graph running, in this ROS_DOMAIN_ID and "
                "namespace? for the simulated arm add --sim"
            )
        self.wait(lambda: all(topic in self.heard for topic in TOLD), SEEN)
        return {
            "mode": self.heard["arbiter/mode"], "reason": self.heard.get("arbiter/mode_reason", ""),
            # What the policy goes by: who said it may be gone, and his latched word with him.
            "instruction": self.values.get("policy_node", {}).get("instruction") or self.heard.get("instruction", ""),
            "scene": _mapping(self.heard.get("sim_node/episode")),
            "recorder": self.heard.get("recorder_node/status", ""),
            "nodes": {n: {"level": level, "message": text} for n, (level, text) in sorted(self.levels.items())},
            "values": self.values,
        }  # fmt: skip

    def close(self) -> None:
        """Leave the graph."""
        self._executor.remove_node(self.node)
        self.node.destroy_node()
        self._executor.shutdown()


def _mapping(text: str | None) -> dict[str, Any]:
    try:
        return dict(json.loads(text or "{}"))
    except (ValueError, TypeError):
        return {}


@contextmanager
def joined(namespace: str = "") -> Iterator[Operator]:
    """Join the graph of this process's ROS environment for the length of a block."""
    context = rclpy.Context()
    runtime.init(context=context)
    operator = Operator(namespace, context)
    try:
        yield operator
    finally:
        operator.close()
        rclpy.try_shutdown(context=context)
