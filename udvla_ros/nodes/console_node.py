"""``console_node``: the operator's page. It looks on, and asks the services and parameters that everybody has.

Nothing waits for it: it takes what has come ten times a second, and where it is killed, hung or flooded, no other node
notices. The web server runs in a thread of its own.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rcl_interfaces.srv import DescribeParameters, GetParameters, SetParametersAtomically
from rclpy.node import Node
from rclpy.parameter import Parameter, parameter_value_to_python
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String
from std_srvs.srv import Trigger

from udvla_ros.console.actions import PARAMETERS, SERVICES
from udvla_ros.console.hub import Hub
from udvla_ros.console.news import LIVE, PREDICTED, TEXTS, News, about, picture, predicted_topics, tell, topics_of
from udvla_ros.console.server import Server
from udvla_ros.errors import ObservationError, UdvlaError
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.nodes import runtime
from udvla_ros.nodes.parameters import Entry, Parameters
from udvla_ros.nodes.taps import Polled, message_class

EVERY = 0.05  # s between two looks at what was asked; at what has come, every second time
KNOBS_EVERY = 40  # looks: 2 s
ANSWER = 5.0  # s that a service may take
TABLE = (
    Entry("robot", "config/robots/ur5e_sim.yaml", "robot file: names cameras, joints and limits", read_only=True),
    Entry("host", "127.0.0.1", "address to listen on; beyond this machine every request needs a token", read_only=True),
    Entry("port", 8080, "to listen on; 0: any that is free", 0, 65535, read_only=True),
    Entry("token", "", "needed with every request; empty: none on this machine, else drawn at start", read_only=True),
    Entry("episodes", "runs/bags", "folder of recorded episodes to list and to show", read_only=True),
)  # fmt: skip
Answer = Callable[[bool, str], None]


class _Tap:
    """One topic, emptied by polling: newest messages only, for a picture the last one alone."""

    def __init__(self, node: Node, group: Polled, topic: str, kind: Any, qos: QoSProfile) -> None:
        self.topic, self.kind = topic, kind
        self._handle = node.create_subscription(
            kind, topic, lambda _: None, qos, raw=True, callback_group=group, event_callbacks=runtime.quiet()
        ).handle

    def take(self, newest: bool) -> list[Any]:
        """Return what has come, decoded; only the last of it if ``newest``."""
        found: list[bytes] = []
        with self._handle:
            while (taken := self._handle.take_message(self.kind, True)) is not None:
                found.append(taken[0])
        return [deserialize_message(bytes(data), self.kind) for data in (found[-1:] if newest else found)]


class ConsoleNode(Node):
    """Topics in, a page out; what the page asks goes to services."""

    def __init__(self) -> None:
        super().__init__("console_node")
        self.parameters = Parameters(self, TABLE)
        values = self.parameters.values()
        self.robot = RobotDescription.load(values["robot"])
        self.hub = Hub()
        self._asked: deque[tuple[dict[str, Any], Answer]] = deque(maxlen=16)
        self._group = Polled()
        self._listen()
        self._say = self.create_publisher(String, "instruction", runtime.LATCHED_QOS)
        self._triggers = {name: self.create_client(Trigger, service) for name, service in SERVICES.items()}
        self._setters, self._getters, self._describers = (
            {node: self.create_client(kind, f"{node}/{service}") for node in PARAMETERS}
            for kind, service in (
                (SetParametersAtomically, "set_parameters_atomically"), (GetParameters, "get_parameters"),
                (DescribeParameters, "describe_parameters"),
            )
        )  # fmt: skip
        self._pending: set[str] = set()
        self._ticks = 0
        self.hub.tell(about(self.robot))
        self._started: threading.Event = threading.Event()
        self._failure: UdvlaError | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._serve, args=(values,), name="web server", daemon=True)
        self._thread.start()
        self._started.wait(20.0)
        if self._failure is not None:
            raise self._failure
        runtime.announce_ready(self, f"the operator's page is at {self.address}")

    def _listen(self) -> None:
        latched = QoSProfile(
            depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
        )
        recent = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
        last = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        qos = dict.fromkeys(TEXTS, latched) | {"policy/hand_over": recent}
        self._texts = [
            _Tap(self, self._group, topic, message_class(kind), qos.get(topic, last if "Joint" in kind else recent))
            for topic, kind in topics_of(self.robot).items()
        ]
        self._states = [tap for tap in self._texts if "JointState" in str(tap.kind)]
        self._pictures: list[tuple[int, str, _Tap]] = []
        for name, camera in self.robot.cameras.items():
            kind = CompressedImage if camera["topic"].endswith("/compressed") else Image
            self._pictures.append((LIVE, name, _Tap(self, self._group, camera["topic"], kind, last)))
        self._foreseen = predicted_topics(list(self.robot.cameras))

    # -- the web server's thread -------------------------------------------------------------------------------
    def _serve(self, values: dict[str, Any]) -> None:
        async def serve() -> None:
            self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
            server = Server(
                self.hub, self._act, values["host"], values["port"], values["token"],
                Path(values["episodes"]).expanduser(),
            )  # fmt: skip
            try:
                await server.start()
            except UdvlaError as error:
                self._failure = error
                return
            finally:
                self.address = server.address
                self._started.set()
            await self._end.wait()
            await server.stop()

        asyncio.run(serve())

    async def _act(self, asked: dict[str, Any]) -> tuple[bool, str]:
        """Hand a request to the node's thread and wait for its answer."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[tuple[bool, str]] = loop.create_future()

        def settle(answered: tuple[bool, str]) -> None:
            if not done.done():
                done.set_result(answered)

        def answer(ok: bool, message: str) -> None:
            loop.call_soon_threadsafe(settle, (ok, message))

        self._asked.append((asked, answer))
        try:
            return await asyncio.wait_for(done, ANSWER)
        except asyncio.TimeoutError:
            return False, "no answer came; see the log of the node that was asked"

    # -- the node's thread -------------------------------------------------------------------------------------
    def tick(self) -> None:
        """Do what was asked, and tell what has come."""
        self._ticks += 1
        while self._asked:
            self._do(*self._asked.popleft())
        if self._ticks % 2:
            return
        for tap in self._texts:
            for message in tap.take(newest=tap in self._states):
                for news in tell(tap.topic, message, self.robot):
                    self.hub.tell(news)
        self._show()
        if self._ticks % KNOBS_EVERY == 0 and self.hub.watched:
            for node in PARAMETERS:
                self._ask_knobs(node)

    def _show(self) -> None:
        """Make pictures while somebody looks. Subscribed to only then, a prediction is painted only then."""
        watched = self.hub.watched
        if watched and self._foreseen:
            qos = QoSProfile(depth=2, reliability=ReliabilityPolicy.BEST_EFFORT)
            self._pictures += [
                (PREDICTED, name, _Tap(self, self._group, topic, Image, qos)) for name, topic in self._foreseen.items()
            ]
            self._foreseen = {}
        for kind, camera, tap in self._pictures:
            for message in tap.take(newest=True):
                if not watched:
                    continue
                try:
                    stamp = runtime.to_seconds(message.header.stamp)
                    self.hub.tell(picture(kind, camera, stamp, message, tap.topic))
                except ObservationError as error:
                    self.get_logger().warning(str(error), throttle_duration_sec=10.0)

    def _do(self, asked: dict[str, Any], answer: Answer) -> None:
        if "say" in asked:
            self._say.publish(String(data=asked["say"]))
            answer(True, f"said: {asked['say']}")
            return
        if "do" in asked:
            client, request = self._triggers[asked["do"]], Trigger.Request()
        else:
            client, request = self._setters[asked["of"]], SetParametersAtomically.Request()
            request.parameters = [Parameter(asked["set"], value=asked["to"]).to_parameter_msg()]
        if not client.service_is_ready():
            answer(False, f"{client.srv_name.lstrip('/').split('/')[0]} is not running: nothing was done")
            return

        def told(future: Any) -> None:
            response = future.result()
            if "do" in asked:
                answer(response.success, response.message)
                return
            result = response.result
            answer(result.successful, result.reason or f"{asked['set']} is {asked['to']}")
            self._ask_knobs(asked["of"])

        client.call_async(request).add_done_callback(told)

    def _ask_knobs(self, node: str) -> None:
        """Ask a node what its knobs are at, and once what they may be."""
        client = self._getters[node]
        if node in self._pending or not client.service_is_ready():
            return
        self._pending.add(node)
        names = list(PARAMETERS[node])

        def told(future: Any) -> None:
            self._pending.discard(node)
            values = map(parameter_value_to_python, future.result().values)
            self.hub.tell(News(f"knobs/{node}", dict(zip(names, values, strict=False))))

        client.call_async(GetParameters.Request(names=names)).add_done_callback(told)
        describer = self._describers.get(node)
        if describer is None or not describer.service_is_ready():
            return
        del self._describers[node]
        describer.call_async(DescribeParameters.Request(names=names)).add_done_callback(
            lambda future: self.hub.tell(News(f"ranges/{node}", [_range(d) for d in future.result().descriptors]))
        )

    def close(self) -> None:
        """End the web server."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(3.0)


def _range(descriptor: Any) -> dict[str, Any]:
    """Return a parameter's name, words, bounds and choices."""
    spans = [*descriptor.integer_range, *descriptor.floating_point_range]
    choices = descriptor.additional_constraints.removeprefix("one of: ")
    return {
        "name": descriptor.name, "words": descriptor.description, "type": descriptor.type,
        "low": spans[0].from_value if spans else None, "high": spans[0].to_value if spans else None,
        "choices": choices.split(", ") if choices != descriptor.additional_constraints else [],
    }  # fmt: skip


def main() -> int:
    """Run the node."""
    runtime.keep_memory()
    return runtime.run(ConsoleNode, every=EVERY)


if __name__ == "__main__":
    sys.exit(main())
