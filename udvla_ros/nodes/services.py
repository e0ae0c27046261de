"""Service calls that outlive a lost answer.

DDS finds the two directions of a service one after the other: a server that has just started may take a request before
it knows where its answer goes, and the answer is lost. So a call that stays unanswered is made again; what is called
this way must mean the same twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger

FOUND = 15.0  # s in which a service is found
PATIENCE = 10.0  # s for one answer: longer than any of our services takes
ATTEMPTS = 3


def ask(client: Any, request: Any, until: Callable[[Callable[[], bool], float], object]) -> Any:
    """Return the answer of a service, or None where none came.

    Args:
        client: of a service that is ready.
        until: spins until a condition holds or that many seconds have gone.
    """
    for _ in range(ATTEMPTS):
        future = client.call_async(request)
        until(future.done, PATIENCE)
        if future.done():
            return future.result()
        client.remove_pending_request(future)
    return None


class Clients:
    """The services of other nodes, asked one after the other.

    Args:
        node: who asks.
        until: spins until a condition holds or that many seconds have gone; returns what the condition gave.
        failure: raised with what is in the way where no answer comes, or where parameters are refused.
    """

    def __init__(
        self, node: Node, until: Callable[[Callable[[], bool], float], object], failure: type[Exception]
    ) -> None:
        self._node, self._until, self._failure = node, until, failure
        self._clients: dict[str, Any] = {}

    def ask(self, kind: Any, service: str, request: Any) -> Any:
        """Return the answer of a service."""
        if service not in self._clients:
            self._clients[service] = self._node.create_client(kind, service)
        client = self._clients[service]
        self._until(client.service_is_ready, FOUND)
        if not client.service_is_ready():
            raise self._failure(f"waited {FOUND:g} s for the service {service}; see the logs of the nodes")
        answer = ask(client, request, self._until)
        if answer is None:
            raise self._failure(f"{service} does not answer; see the logs of the nodes")
        return answer

    def trigger(self, service: str) -> Trigger.Response:
        """Call a Trigger service and return its answer."""
        return self.ask(Trigger, service, Trigger.Request())

    def set_parameters(self, node: str, values: Mapping[str, object]) -> None:
        """Set parameters of a node, all of which it has to accept."""
        request = SetParameters.Request()
        request.parameters = [Parameter(n, value=v).to_parameter_msg() for n, v in values.items()]
        for result in self.ask(SetParameters, f"{node}/set_parameters", request).results:
            if not result.successful:
                raise self._failure(f"{node} refused a parameter: {result.reason}")
