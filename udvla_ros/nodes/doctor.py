"""The looking of `udvla doctor`: joins the graph, listens and reads, and brings a snapshot home.

It creates no publisher of its own, calls nothing but services that read, and commands nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.srv import GetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Bool, Float64, String

from udvla_ros.doctor import wiring
from udvla_ros.doctor.arm import CARRIES_ON
from udvla_ros.doctor.snapshot import (
    BEST_EFFORT,
    RELIABLE,
    TRANSIENT_LOCAL,
    VOLATILE,
    Camera,
    Endpoint,
    Qos,
    Snapshot,
    Stream,
    Topic,
)
from udvla_ros.errors import ObservationError
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.nodes import images, runtime
from udvla_ros.rollouts.frames import cropped

FINDING = 4.0  # s that nodes may take to be found; found earlier, the look begins earlier
ANSWER = 2.0  # s that a service may take
LIST_CONTROLLERS = "controller_manager_msgs/srv/ListControllers"
SETTINGS = ("ROS_DOMAIN_ID", "RMW_IMPLEMENTATION", "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY",
            "FASTRTPS_DEFAULT_PROFILES_FILE")  # fmt: skip
DRIVER = {"program_running": Bool, "speed_scaling": Float64}
# Asks for as little as can be asked, so that it hears every publisher; what others miss is judged from the policies.
ANY = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)


class Doctor:
    """Looks at the graph around one robot file.

    Args:
        robot: the robot file.
        namespace: that of the graph's nodes.
        remaps: names of the robot file -> names in the graph, as launch's remappings.
        context: rclpy context.
    """

    def __init__(
        self,
        robot: RobotDescription,
        namespace: str = "",
        remaps: Mapping[str, str] | None = None,
        context: rclpy.Context | None = None,
    ) -> None:
        rules = [text for pair in (remaps or {}).items() for text in ("-r", f"{pair[0]}:={pair[1]}")]
        self.robot = robot
        self.node = Node(
            "udvla_doctor", namespace=namespace or None, context=context, use_global_arguments=False,
            cli_args=["--ros-args", *rules] if rules else None, enable_rosout=False, start_parameter_services=False,
        )  # fmt: skip
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self.node)
        self._seen = Snapshot(0.0)
        self._last_image: dict[str, tuple[np.ndarray, float]] = {}
        self._kept: dict[str, tuple[Any, Callable[[Any], None]]] = {}  # topics whose publishers may be latched
        self._awaited: set[str] = set()  # those found to be latched, of which nothing has come yet

    def close(self) -> None:
        """Leave the graph."""
        self._executor.remove_node(self.node)
        self.node.destroy_node()
        self._executor.shutdown()

    # -- looking -----------------------------------------------------------------------------------------
    def look(self, seconds: float, progress: Callable[[str], None] = lambda line: None) -> Snapshot:
        """Find the nodes, listen for ``seconds``, ask the controller, and return what was seen."""
        progress("finding nodes")
        self._wait(self._found_all, FINDING)
        self._seen = Snapshot(seconds, environment={name: os.environ.get(name, "") for name in SETTINGS})
        self._listen()
        progress(f"listening for {seconds:g} s")
        self._wait(self._hear_latched, seconds)
        self._wait(lambda: not self._awaited, ANSWER)
        progress("asking the controller")
        self._ask_controller()
        seen = self._seen
        seen.topics = {name: self._topic(name) for name in self._names()}
        seen.nodes = sorted(f"{space.rstrip('/')}/{name}" for name, space in self.node.get_node_names_and_namespaces())
        seen.use_sim_time = bool(self.node.get_publishers_info_by_topic("/clock"))
        return seen

    def _wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._executor.spin_once(timeout_sec=min(left, 0.05))
        return True

    def _names(self) -> list[str]:
        """Return every topic that is judged, by its name in the robot file."""
        names = [entry.topic for entry in wiring.inputs(self.robot)]
        for output in wiring.outputs(self.robot):
            names.append(f"{output.topic}/_action/status" if output.action else output.topic)
        names += [self.robot.driver[key] for key in DRIVER if key in self.robot.driver]
        return [name for name in names if name] + ["instruction", "arbiter/mode", "robot_description"]

    def _found_all(self) -> bool:
        """Return whether every input is published, every output has a listener, and an arbiter runs."""
        names = [entry.topic for entry in wiring.inputs(self.robot) if entry.topic]
        ins = all(self._topic(name).publishers for name in [*names, "arbiter/mode"])
        outs = (o for o in wiring.outputs(self.robot) if o.topic and not o.action)
        return ins and all(self._topic(o.topic).subscriptions for o in outs)

    def _topic(self, name: str) -> Topic:
        full = self.node.resolve_topic_name(name)
        own = self.node.get_fully_qualified_name()
        ends = [
            tuple(end for end in map(_endpoint, infos) if end.node != own)
            for infos in (
                self.node.get_publishers_info_by_topic(full), self.node.get_subscriptions_info_by_topic(full)
            )
        ]  # fmt: skip
        return Topic(full, ends[0], ends[1])

    # -- listening ---------------------------------------------------------------------------------------
    def _listen(self) -> None:
        robot = self.robot
        subscribe: Any = self.node.create_subscription  # its annotations know no callback that takes a message's info
        subscribe(JointState, robot.topics.get("joint_states", "joint_states"), self._on_joints, ANY)
        for entry in wiring.inputs(robot)[1:]:
            name, kinds = entry.what.removeprefix("camera "), {wiring.IMAGE: Image, wiring.COMPRESSED: CompressedImage}
            self._seen.cameras[name] = Camera()
            if entry.topic:
                subscribe(kinds[entry.type], entry.topic, partial(self._on_image, name, entry.topic), ANY)
        subscribe(DiagnosticArray, "/diagnostics", self._on_diagnostics, ANY)
        self._kept = {
            "robot_description": (String, self._on_urdf),
            "arbiter/mode": (String, self._on_mode),
            "arbiter/mode_reason": (String, self._on_reason),
        } | {
            robot.driver[key]: (kind, partial(self._on_driver, key))
            for key, kind in DRIVER.items()
            if key in robot.driver
        }
        for topic, (kind, callback) in self._kept.items():
            subscribe(kind, topic, callback, ANY)

    def _hear_latched(self) -> bool:
        """Ask each latched publisher found by now for what it keeps; it sends that to those alone who ask for it.

        Nodes are found one after the other, so an arbiter may be found after the look began. Always False.
        """
        for topic, (kind, callback) in list(self._kept.items()):
            if any(end.qos.durability == TRANSIENT_LOCAL for end in self._topic(topic).publishers):
                self._awaited.add(topic)
                self.node.create_subscription(kind, topic, partial(self._on_kept, topic, callback), runtime.LATCHED_QOS)
                del self._kept[topic]
        return False

    def _on_kept(self, topic: str, callback: Callable[[Any], None], message: Any) -> None:
        self._awaited.discard(topic)
        callback(message)

    def _note(self, stream: Stream, stamp: Any, info: Any) -> None:
        # The middleware's time of arrival: Python may come to the message late.
        received = float(info.get("received_timestamp", 0)) * 1e-9
        stream.arrivals.append(received if received > 0 else runtime.now(self.node))
        stream.stamps.append(runtime.to_seconds(stamp))

    def _on_joints(self, message: JointState, info: Any) -> None:
        states = self._seen.joint_states
        self._note(states, message.header.stamp, info)
        names = tuple(message.name)
        states.groups[names] = states.groups.get(names, 0) + 1
        states.positions |= dict(zip(message.name, message.position, strict=False))
        if set(names) & set(self.robot.joints):
            states.with_velocity &= len(message.velocity) == len(message.position)

    def _on_image(self, name: str, topic: str, message: Image | CompressedImage, info: Any) -> None:
        camera = self._seen.cameras[name]
        self._note(camera, message.header.stamp, info)
        try:
            entry = self.robot.cameras[name]
            encoding = message.format if isinstance(message, CompressedImage) else message.encoding
            pixels = images.message_to_rgb(message, topic, entry.get("encoding", ""))
            pixels = cropped(pixels, name, entry)
        except ObservationError as error:
            camera.problem = str(error)
            return
        at = camera.arrivals[-1]
        last, since = self._last_image.get(name, (None, at))
        since = since if last is not None and np.array_equal(last, pixels) else at
        self._last_image[name] = (pixels, since)
        camera.unchanged = at - since
        camera.image = pixels
        camera.encodings.add(encoding)
        camera.sizes.add((pixels.shape[1], pixels.shape[0]))

    def _on_driver(self, key: str, message: Bool | Float64) -> None:
        self._seen.driver[key] = message.data

    def _on_urdf(self, message: String) -> None:
        self._seen.urdf = message.data

    def _on_mode(self, message: String) -> None:
        self._seen.arbiter.mode = message.data

    def _on_reason(self, message: String) -> None:
        self._seen.arbiter.reason = message.data

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.rpartition("/")[2] == wiring.ARBITER:
                arbiter = self._seen.arbiter
                arbiter.level, arbiter.message = int.from_bytes(status.level, "little"), status.message
                arbiter.values = {value.key: value.value for value in status.values}

    # -- asking ------------------------------------------------------------------------------------------
    def _ask(self, kind: Any, service: str, requests: Sequence[Any]) -> list[Any] | None:
        """Return the answers of a service that reads, or None where it does not answer."""
        client = self.node.create_client(kind, service)
        try:
            if not self._wait(client.service_is_ready, ANSWER):
                return None
            futures = [client.call_async(request) for request in requests]
            if not self._wait(lambda: all(future.done() for future in futures), ANSWER):
                return None
            return [future.result() for future in futures]
        finally:
            self.node.destroy_client(client)

    def _ask_controller(self) -> None:
        controller, command = self._seen.controller, self.robot.topics.get("command", "")
        if not command:
            return
        services = dict(self.node.get_service_names_and_types())
        controller.node = self.node.resolve_topic_name(command).rpartition("/")[0]
        if f"{controller.node}/get_parameters" in services:
            names = ["joints", *CARRIES_ON, *(f"constraints.{joint}.trajectory" for joint in self.robot.joints)]
            # One by one: a name that the node does not know spoils the whole answer.
            asked = [GetParameters.Request(names=[name]) for name in names]
            answers = self._ask(GetParameters, f"{controller.node}/get_parameters", asked)
            if answers is not None:
                controller.parameters = {
                    name: _value(answer.values[0])
                    for name, answer in zip(names, answers, strict=True)
                    if answer.values
                }
        managers = [name for name, types in services.items() if LIST_CONTROLLERS in types]
        if managers:
            controller.manager = managers[0].rpartition("/")[0]
            self._list_controllers(managers[0])

    def _list_controllers(self, service: str) -> None:
        controller = self._seen.controller
        try:
            from controller_manager_msgs.srv import ListControllers
        except ImportError:
            controller.why_unknown = "controller_manager_msgs is not installed beside this Python"
            return
        answers = self._ask(ListControllers, service, [ListControllers.Request()])
        if answers is None:
            controller.why_unknown = f"{service} does not answer"
            return
        controller.states = {entry.name: (entry.type, entry.state) for entry in answers[0].controller}


def _endpoint(info: Any) -> Endpoint:
    qos = info.qos_profile
    return Endpoint(
        node=f"{info.node_namespace.rstrip('/')}/{info.node_name}",
        type=info.topic_type,
        qos=Qos(
            BEST_EFFORT if qos.reliability == ReliabilityPolicy.BEST_EFFORT else RELIABLE,
            TRANSIENT_LOCAL if qos.durability == DurabilityPolicy.TRANSIENT_LOCAL else VOLATILE,
        ),
    )


def _value(value: Any) -> Any:
    with suppress(TypeError):
        value = parameter_value_to_python(value)
    return list(value) if isinstance(value, (list, tuple)) or hasattr(value, "tolist") else value


@contextmanager
def joined(
    robot: RobotDescription, namespace: str = "", remaps: Mapping[str, str] | None = None
) -> Iterator[Doctor]:
    """Join the graph of this process's ROS environment for the length of a block."""
    context = rclpy.Context()
    runtime.init(context=context)
    doctor = Doctor(robot, namespace, remaps, context)
    try:
        yield doctor
    finally:
        doctor.close()
        rclpy.try_shutdown(context=context)
