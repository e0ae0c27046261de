"""The demo's client: plays the operator of the running graph, episode by episode, and notes what it sees.

It knows the graph by its topics and services only. It is no node of the graph table: ``udvla demo`` runs it in its
own process and spins it while it waits.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import Image
from std_msgs.msg import String

from udvla_ros.errors import UdvlaError
from udvla_ros.evaluation.cases import Case
from udvla_ros.evaluation.mode_bands import ModeChange, bands
from udvla_ros.evaluation.recording import EpisodeRecord, Film
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.nodes import images, runtime, services

TO_REST = 0.5  # s that a stop may take, before the scene is set anew
SEEN = 0.3  # s after which the arbiter has surely measured the arm where the new scene put it
AFTERMATH = 0.9  # s watched beyond an episode's end: what the last chunk foresaw comes within it
HELP = 30.0  # s an episode may last longer while a person helps
FIRST_CHUNK = 15.0  # s that a policy may take to its first chunk
TOGETHER = 0.05  # s between a mode and its reason
CONTROL_DT = 0.1
OVER = ("succeeded", "failed")
T = TypeVar("T")


class GraphFailed(UdvlaError):
    """A node ended, or does not answer."""

    exit_code = 1


class DemoClient:
    """Operates the sim graph and records episodes.

    Args:
        robot: the robot file that the graph runs with: names the cameras' topics.
        cameras: which cameras are recorded; the first one's prediction is on ``policy_node/predicted_image``.
        health: returns a line when the graph is broken, else an empty string; looked at while waiting.
        context: rclpy context.
        record: whether recorder_node runs and is to record each episode.
    """

    def __init__(
        self,
        robot: RobotDescription,
        cameras: Sequence[str] | None = None,
        health: Callable[[], str] = lambda: "",
        context: rclpy.Context | None = None,
        record: bool = False,
    ) -> None:
        self._recorded = record
        self.node = rclpy.create_node("demo_client", context=context)
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self.node)
        self._health = health
        self._cameras = list(robot.cameras if cameras is None else cameras)
        self._record: EpisodeRecord | None = None
        self._episode: dict[str, Any] = {}
        self._mode = self._reason = ""
        self._values: dict[str, dict[str, str]] = {}
        self._services = services.Clients(self.node, self.wait, GraphFailed)
        subscribe = self.node.create_subscription
        for index, name in enumerate(self._cameras):
            subscribe(Image, robot.cameras[name]["topic"], partial(self._on_image, name), runtime.CAMERA_QOS)
            topic = "policy_node/predicted_image" + (f"/{name}" if index else "")
            subscribe(Image, topic, partial(self._on_prediction, name), runtime.STATE_QOS)
        subscribe(String, "policy_node/chunk_info", self._on_chunk, runtime.STATE_QOS)
        subscribe(String, "sim_node/episode", self._on_episode, runtime.LATCHED_QOS)
        subscribe(String, "arbiter/mode", self._on_mode, runtime.LATCHED_QOS)
        subscribe(String, "arbiter/mode_reason", self._on_reason, runtime.LATCHED_QOS)
        subscribe(DiagnosticArray, "/diagnostics", self._on_diagnostics, 50)

    # -- in ----------------------------------------------------------------------------------------------
    def _on_image(self, name: str, message: Image) -> None:
        if self._record is not None:
            self._record.film.add(name, runtime.to_seconds(message.header.stamp), images.to_rgb(message, name))

    def _on_prediction(self, name: str, message: Image) -> None:
        if self._record is not None:
            due = runtime.to_seconds(message.header.stamp)
            self._record.predict(name, due, self.now(), images.to_rgb(message, name))

    def _on_chunk(self, message: String) -> None:
        if self._record is not None:
            self._record.chunks.append(json.loads(message.data))

    def _on_episode(self, message: String) -> None:
        self._episode = json.loads(message.data)

    def _on_mode(self, message: String) -> None:
        self._mode = message.data
        if self._record is not None:
            self._record.modes.append(ModeChange(self.now(), message.data, self._reason))

    def _on_reason(self, message: String) -> None:
        self._reason = message.data
        record = self._record
        # Mode and reason are two topics: the one that comes second completes what the first said.
        if record is not None and record.modes and self.now() - record.modes[-1].time < TOGETHER:
            record.modes[-1] = replace(record.modes[-1], reason=message.data)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self._values[status.name] = {value.key: value.value for value in status.values}

    # -- waiting and calling -------------------------------------------------------------------------------
    def now(self) -> float:
        """Return ROS time in seconds."""
        return runtime.now(self.node)

    def wait(self, condition: Callable[[], T], seconds: float) -> T | None:
        """Spin until the condition holds and return its value, or None when the time is over.

        Raises:
            GraphFailed: the graph broke meanwhile.
        """
        deadline = time.monotonic() + seconds
        while True:
            broken = self._health()
            if broken:
                raise GraphFailed(broken)
            value = condition()
            if value:
                return value
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self._executor.spin_once(timeout_sec=min(left, 0.05))

    def _need(self, condition: Callable[[], T], what: str, seconds: float = 15.0) -> T:
        value = self.wait(condition, seconds)
        if value is None:
            raise GraphFailed(f"waited {seconds:g} s for {what}; see the logs of the nodes")
        return value

    def _set_scene(self, case: Case) -> None:
        values = {"seed": case.seed, "task": str(case.task), "instruction": case.instruction}
        self._services.set_parameters("sim_node", values)

    # -- episodes ------------------------------------------------------------------------------------------
    def run_episode(self, case: Case) -> EpisodeRecord:
        """Set the scene, give the arm to the policy, watch, and stop the arm.

        Raises:
            GraphFailed: a node ended or does not answer.
        """
        self._prepare(case)
        self._record = record = EpisodeRecord(case, Film(self._cameras))
        record.modes.append(ModeChange(self.now(), self._mode, self._reason))
        try:
            self._need(lambda: record.film.stamps(), "an image")
            if self._recorded:
                record.bag = self._recorder("start")
            answer = self._services.trigger("arbiter_node/engage_policy")
            if not answer.success:
                raise GraphFailed(f"the arbiter did not engage the policy: {answer.message}")
            record.began = self.now()
            if self.wait(lambda: record.chunks or self._over(), FIRST_CHUNK):
                record.began = self.now()
                self._watch(record, case.limit * CONTROL_DT)
            self._note_end(record, case)
            self.wait(lambda: False, AFTERMATH)
            if self._recorded:
                self._recorder("stop_success" if record.success else "stop_failure")
        finally:
            self._record = None
        self._services.trigger("arbiter_node/stop")
        self.wait(lambda: False, TO_REST)
        return record

    def _prepare(self, case: Case) -> None:
        self._services.trigger("arbiter_node/stop")
        self._set_scene(case)
        answer = self._services.trigger("sim_node/reset_episode")
        if not answer.success:
            raise GraphFailed(f"sim_node did not reset: {answer.message}")
        number = json.loads(answer.message)["number"]
        self._need(lambda: self._episode.get("number") == number, "the new episode")
        # A reset from joint states of before the scene changed would send the arm back to where it was.
        self.wait(lambda: False, SEEN)
        self._need(lambda: self._services.trigger("arbiter_node/reset").success, "the arm to be reset")
        self._need(lambda: self._mode == "HOLD", "mode HOLD")

    def _watch(self, record: EpisodeRecord, limit: float) -> None:
        """Wait for the end; the time in which somebody else had the arm, while a person helps, is not the policy's."""
        deadline = record.began + limit

        def over() -> bool:
            listed = bands(record.modes, record.began, self.now())
            helped = [
                band.end - band.begin
                for before, band in zip([None, *listed], listed, strict=False)
                if band.mode == "TELEOP" or (band.mode == "HOLD" and before is not None and before.mode == "TELEOP")
            ]
            return self._over() or self.now() > deadline + min(sum(helped), HELP)

        self.wait(over, limit + HELP)

    def _recorder(self, service: str) -> str:
        """Call recorder_node and return what it says: the folder of the bag."""
        answer = self._services.trigger(f"recorder_node/{service}")
        if not answer.success:
            raise GraphFailed(f"recorder_node did not {service.replace('_', ' with ')}: {answer.message}")
        return answer.message

    def _over(self) -> bool:
        return self._episode.get("state") in OVER

    def _note_end(self, record: EpisodeRecord, case: Case) -> None:
        record.ended = self.now()
        if self._over():
            record.success, record.reason = bool(self._episode["success"]), str(self._episode["reason"])
            record.steps, record.seconds = int(self._episode["steps"]), float(self._episode["seconds"])
        elif record.chunks:
            record.reason, record.steps = "out of time", case.limit
            record.seconds = record.ended - record.began
        else:
            refusal = self._values.get("policy_node", {}).get("last_refusal", "")
            record.reason = f"no chunk came{': ' if refusal else ''}{refusal}"

    def limit_violations(self) -> int | None:
        """Return how many commands at the controller broke a limit since the graph began; None: nobody says."""
        self._values.pop("sim_node", None)
        text = self.wait(lambda: self._values.get("sim_node", {}).get("limit_violations"), 5.0)
        return None if text is None else int(text)

    def values(self, node: str) -> dict[str, str]:
        """Return the newest diagnostic values of a node."""
        return dict(self._values.get(node, {}))

    def close(self) -> None:
        """Leave the graph."""
        self._executor.remove_node(self.node)
        self.node.destroy_node()
        self._executor.shutdown()


@contextmanager
def joined(robot: RobotDescription, health: Callable[[], str], record: bool = False) -> Iterator[DemoClient]:
    """Join the graph of this process's ROS environment for the length of a block."""
    context = rclpy.Context()
    rclpy.init(context=context)
    client = DemoClient(robot, health=health, context=context, record=record)
    try:
        yield client
    finally:
        client.close()
        rclpy.try_shutdown(context=context)
