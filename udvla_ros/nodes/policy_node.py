"""``policy_node``: images and a sentence in, chunks of joint targets and the pictures they lead to out.

A lifecycle node: configure loads the bundle and the robot file, checks that they fit and warms up, activate
starts the inference thread. A chunk is a ``JointTrajectory`` stamped with the time of its observation; point k is
due ``(k + 1) dt`` later. The TCP deltas start from what the arbiter commanded at that time.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import String

from udvla_ros.errors import ObservationError, UdvlaError
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.nodes import images, runtime
from udvla_ros.nodes.diagnostics import ERROR, OK, WARN, Diagnostics, Rate, Report, StageTimes
from udvla_ros.nodes.foresight import Foresight
from udvla_ros.nodes.inference import InferenceLoop, Result, Settings
from udvla_ros.nodes.parameters import Parameters
from udvla_ros.nodes.policy_output import PolicyOutput
from udvla_ros.nodes.policy_parts import (
    RUNTIME,
    TABLE,
    decode_options,
    folder_of,
    load_policy,
    make_observation,
    remote_policy,
)
from udvla_ros.policy import contract, words
from udvla_ros.policy.knobs import KNOBS, differences, parameters_of
from udvla_ros.policy.observe import CommandHistory, ObservationBuffer
from udvla_ros.rollouts import frames

RECENT = 2.0  # s for which a refusal colours the diagnostics
WAITS_QUIETLY = 5.0  # s that cameras and arbiter may take to be found
ENGAGED = "POLICY"
LOST = "ServerLost"  # a refusal after which nothing good is to be expected


@runtime_checkable
class Remote(Protocol):
    """A policy that is somewhere else, and may be lost."""

    def reset(self) -> None: ...

    def close(self) -> None: ...


class PolicyNode(runtime.GuardedLifecycle):
    """The policy in the graph.

    Args:
        load: makes a policy of (bundle, device, the parameters that say how it runs); tests give a scripted one.
        options: makes the decoder's options of the policy and the parameter values.
        observe: makes the policy's observation of (images, instruction, stamp).
    """

    def __init__(
        self,
        load: Callable[[str, str, dict[str, Any]], Any] = load_policy,
        options: Callable[[Any, dict[str, Any]], Any] = decode_options,
        observe: Callable[[dict[str, np.ndarray], str, float], Any] = make_observation,
    ) -> None:
        super().__init__("policy_node")
        self._load, self._options, self._observe = load, options, observe
        self._policy: Any = None
        self._loop: InferenceLoop | None = None
        self._active = False
        self._said: set[str] = set()  # parameters that somebody has set
        self._patience: Any = None
        self._mode: str | None = None
        self._failure = ""
        self._instruction = ""
        self._unknown: list[str] = []  # words of it that the bundle never saw
        self._refusal, self._refused_at = "", -np.inf
        self._refusals: Counter[str] = Counter()
        self._logged: dict[str, float] = {}
        self._latencies = StageTimes()
        self._in_use: Any = None  # options of the last chunk
        self._cold_start = 0.0
        self._chunks = 0
        self._rates = {"chunks": Rate(5.0)}
        self._inputs: list[Any] = []
        self.parameters = Parameters(self, TABLE, check=self._check, changed=self._on_parameters)
        self._said.clear()  # to declare them is not to say anything
        self._instruction = words.one_line(self.parameters["instruction"])
        self._out = PolicyOutput(self)
        self._foresight = Foresight(self, self.parameters.values, self._on_alarm)
        self._diagnostics = Diagnostics(self, self.parameters["bundle"], self._report)

    # -- lifecycle ---------------------------------------------------------------------------------------
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load, check that bundle and robot fit, warm up."""
        try:
            self._configure()
        except Exception as error:  # rclpy would swallow it; torch may be missing, a file of the bundle broken
            self._failure = runtime.one_line(error)
            if not isinstance(error, (UdvlaError, ModuleNotFoundError)):
                self.get_logger().debug("".join(traceback.format_exception(error)))
            self.get_logger().error(self._failure)
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        self._failure = ""
        values = self.parameters.values()
        robot = RobotDescription.load(values["robot"])
        begin = time.perf_counter()
        if values["server"]:
            policy = remote_policy(values["server"], values["server_timeout"])
        else:
            policy = self._load(values["bundle"], values["device"], {name: values[name] for name in RUNTIME})
        loaded = time.perf_counter()
        space = contract.check(policy.config, robot)
        cameras = list(policy.config.cameras)
        self._take_defaults(policy)
        options = self._options(policy, self.parameters.values())
        begin_cold = time.perf_counter()
        policy.warm_up(options, runs=1)
        self._cold_start = (time.perf_counter() - begin_cold) * 1e3
        policy.warm_up(options, runs=1)
        warm = time.perf_counter()
        self._policy, self._robot, self._cameras = policy, robot, cameras
        squashed = getattr(getattr(policy.config, "images", None), "squash", False)  # the bundle takes any shape
        views = () if squashed else getattr(policy.config, "views", ())
        self._shapes = {view.name: (view.height, view.width) for view in views}
        self._observations = ObservationBuffer(cameras, contract.guards_of(robot))
        self._history = CommandHistory(len(robot.joints))
        self._rates |= {name: Rate() for name in cameras}
        self._out.open(cameras)
        missing = self._foresight.open(policy, robot, folder_of(values["bundle"]))
        if missing and values["monitor"] != "none":
            self.get_logger().warning(missing)
        self._loop = InferenceLoop(
            policy, space, self._observations, self._history, self._settings, self._observe,
            self._on_result, self._on_refusal, self._on_bug, lambda: runtime.now(self),
            lambda options: policy.warm_up(options, runs=1),
        )  # fmt: skip
        self._listen()
        self._tell_meaning()
        self.get_logger().info(
            f"bundle '{policy.config.name}' on {values['server'] or values['device']}: cameras {', '.join(cameras)}, "
            f"{policy.config.action_space}, chunks of {policy.config.chunk} at {policy.config.control_hz} Hz; "
            f"loaded in {loaded - begin:.1f} s, warmed up in {warm - begin_cold:.1f} s"
        )

    def _take_defaults(self, policy: Any) -> None:
        """Let the bundle's own options be the values of the parameters that nobody has given."""
        given = set(self._parameter_overrides) | self._said
        defaults = {name: v for name, v in parameters_of(policy.options()).items() if name not in given}
        self.set_parameters_atomically([Parameter(name, value=value) for name, value in defaults.items()])
        self._said = given

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start inference."""
        self._forgive()
        self._active = True
        self._decide()
        self._activated = time.monotonic()
        self._patience = self.create_timer(0.1, self._announce)
        return super().on_activate(state)

    def _announce(self) -> None:
        """Say that all is ready once the cameras and the commanded joints come: finding them takes a while."""
        waited = time.monotonic() - self._activated
        try:
            frames = self._observations.take(runtime.now(self))
            self._history.at(frames.stamp)
        except ObservationError as error:
            if waited > WAITS_QUIETLY:
                self.get_logger().warning(f"active, but: {error}", throttle_duration_sec=5.0)
            return
        self._end_patience()
        runtime.announce_ready(self, f"policy '{self._policy.config.name}' active, {waited:.1f} s after its start")
        said = "" if self._instruction else "udvla say '...', then "
        self.get_logger().info(f"next: {said}udvla engage")

    def _end_patience(self) -> None:
        if self._patience is not None:
            self.destroy_timer(self._patience)
            self._patience = None

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop inference; the arm ends the plan it has."""
        self._active = False
        self._end_patience()
        self._decide()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unload the bundle."""
        self.close()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End inference."""
        self.close()
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        """Free what configure made."""
        self._active = False
        self._end_patience()
        if self._loop is not None:
            self._loop.close()
            self._loop = None
        for entity in self._inputs:
            self.destroy_subscription(entity)
        if isinstance(self._policy, Remote):
            self._policy.close()
        self._out.close()
        self._inputs, self._policy = [], None

    # -- in ----------------------------------------------------------------------------------------------
    def _listen(self) -> None:
        reliable = self.parameters["camera_reliability"] == "reliable"
        reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        camera_qos = QoSProfile(depth=1, reliability=reliability)
        for name in self._cameras:
            topic = self._robot.cameras[name]["topic"]
            kind = CompressedImage if topic.endswith("/compressed") else Image
            self._inputs.append(
                self.create_subscription(kind, topic, partial(self._on_image, name, topic), camera_qos)
            )
        self._inputs += [
            self.create_subscription(JointState, "arbiter/command", self._on_command, runtime.STATE_QOS),
            self.create_subscription(String, "arbiter/mode", self._on_mode, runtime.LATCHED_QOS),
            *runtime.hear(self, String, "instruction", self._on_instruction),
        ]

    def _on_image(self, name: str, topic: str, message: Image | CompressedImage) -> None:
        self._rates[name].note(runtime.now(self))
        try:
            entry = self._robot.cameras[name]
            pixels = frames.cropped(images.message_to_rgb(message, topic, entry.get("encoding", "")), name, entry)
            if name in self._shapes:
                pixels = frames.shaped(pixels, name, *self._shapes[name], entry)
        except ObservationError as error:
            self._observations.spoil(name, str(error))
            return
        self._observations.add(name, pixels, runtime.to_seconds(message.header.stamp))
        if self._loop is not None:
            self._loop.notify()

    def _on_command(self, message: JointState) -> None:
        at = dict(zip(message.name, message.position, strict=False))
        try:
            commanded = np.array([at[joint] for joint in self._robot.joints])
        except KeyError as missing:
            self._on_refusal("command", f"arbiter/command lacks joint {missing}; do both use one robot file?")
            return
        self._history.add(runtime.to_seconds(message.header.stamp), commanded)

    def _on_mode(self, message: String) -> None:
        if message.data == ENGAGED != self._mode:
            self._forgive()
        self._mode = message.data
        self._foresight.reset()
        self._decide()

    def _forgive(self) -> None:
        """Ask a server again that was lost: somebody has engaged the policy anew."""
        if isinstance(self._policy, Remote):
            self._policy.reset()

    def _on_instruction(self, message: String) -> None:
        self._instruct(message.data)

    def _instruct(self, text: str) -> None:
        text = words.one_line(text)
        if text == self._instruction:
            return
        self._instruction = text
        self.get_logger().info(f"instruction: {words.shown(text)}")
        self._tell_meaning()
        if self._loop is not None:
            self._loop.restart()

    def _meaning(self) -> words.Meaning:
        return words.meaning(self._instruction, self._unknown)

    def _tell_meaning(self) -> None:
        """Say what is odd about the sentence; one that means hold gives the arm back at once."""
        said = self._instruction
        self._unknown = self._policy.unknown_words(said) if self._policy is not None and said.strip() else []
        meaning = self._meaning()
        if meaning.hold:
            self._foresight.hand_over(meaning.refused)
        elif self._policy is not None and self._instruction and (meaning.refused or meaning.said):
            self.get_logger().warning(meaning.refused or meaning.said)

    def _decide(self) -> None:
        """Run inference only while it is wanted; what was computed for another mode is dropped."""
        if self._loop is None:
            return
        engaged = self._mode in (None, ENGAGED) or not self.parameters["only_when_engaged"]
        self._loop.want(self._active and engaged)

    # -- parameters --------------------------------------------------------------------------------------
    def _check(self, values: dict[str, Any]) -> None:
        if self._policy is not None:
            self._options(self._policy, values)
            self._foresight.check(values)

    def _on_parameters(self, changed: dict[str, Any]) -> None:
        self._said |= changed.keys()
        if changed.get("instruction"):
            self._instruct(changed["instruction"])
        if "only_when_engaged" in changed:
            self._decide()
        if self._loop is not None and any(knob.name in changed for knob in KNOBS):
            self._loop.options_changed()

    def _settings(self) -> Settings:
        values = self.parameters.values()
        return Settings(
            instruction=self._instruction,
            options=self._options(self._policy, values),
            execute_steps=values["execute_steps"] or max(1, self._policy.config.chunk // 2),
            base_seed=values["base_seed"],
            cut=values["cut_unreachable"],
            refused=self._meaning().refused,
        )

    # -- out, in the inference thread --------------------------------------------------------------------
    def _on_result(self, result: Result) -> None:
        if self._in_use is not None and result.options != self._in_use:
            self._latencies.turned(differences(self._in_use, result.options))
        self._in_use = result.options
        self._latencies.add(result.timings_ms)
        self._chunks += 1
        self._rates["chunks"].note(runtime.now(self))
        about = {
            "chunk": self._chunks,
            "runtime": {name: self.parameters[name] for name in ("device", *RUNTIME)},
            "cold_start_ms": round(self._cold_start, 1),
            "bundle": self._policy.config.name,
            "bundle_hash": self._policy.hash,
        }
        self._out.publish(result, self._robot, about)
        self._foresight.update(result)
        if "image_decode" in result.chunk.timings_ms:  # painted last, for those who look
            self._latencies.add({"image_decode": result.chunk.timings_ms["image_decode"]})

    def _on_alarm(self, text: str) -> None:
        self.get_logger().warning(text)
        self._diagnostics.publish()

    def _on_refusal(self, kind: str, text: str) -> None:
        now = runtime.now(self)
        self._refusals[kind] += 1
        if kind == LOST:
            self._foresight.hand_over(text)
        self._refusal, self._refused_at = text, now
        if now - self._logged.get(kind, -np.inf) > 5.0:  # each kind at once, then every five seconds
            self._logged[kind] = now
            self.get_logger().warning(f"no chunk: {text}")
            self._diagnostics.publish()

    def _on_bug(self, error: Exception) -> None:
        if not self.context.ok():
            return  # the process ends, and what is published then fails
        self._on_refusal("bug", f"{type(error).__name__}: {error}")
        self.get_logger().error("".join(traceback.format_exception(error)), throttle_duration_sec=5.0)

    def _report(self) -> Report:
        now = runtime.now(self)
        values: dict[str, object] = {
            "instruction": self._instruction,
            "mode": self._mode or "no arbiter heard",
            "active": self._active,
            "chunks": self._chunks,
            "cold_start_ms": self._cold_start,
            "last_refusal": self._refusal,
        }
        values |= {f"{name}_hz": rate.hz(now) for name, rate in self._rates.items()}
        values |= {f"refused/{kind}": count for kind, count in sorted(self._refusals.items())}
        values |= {f"knob/{name}": value for name, value in parameters_of(self._in_use).items()}
        values |= self._latencies.values()
        if self._policy is None:
            return (ERROR if self._failure else WARN), self._failure or "not configured", values
        values |= {f"{n}_age_s": "never" if a is None else a for n, a in self._observations.ages(now).items()}
        values["superseded"] = self._loop.superseded if self._loop else 0
        values["bundle_hash"] = self._policy.hash
        values |= {"unknown_words": " ".join(self._unknown), **self._foresight.report()}
        if now - self._refused_at < RECENT:
            return WARN, f"no chunk: {self._refusal}", values
        if not self._active:
            return OK, "configured, not active", values
        doubt = self._foresight.last.reason if self._foresight.last else ""
        if doubt:
            return WARN, f"monitor: {doubt}", values
        return OK, "running" if self._mode in (None, ENGAGED) else f"waiting, mode is {self._mode}", values

    def autostart(self) -> None:
        """Configure and activate, as a lifecycle manager would.

        Raises:
            UdvlaError: the one line of what is in the way.
        """
        if self.trigger_configure() != TransitionCallbackReturn.SUCCESS:
            raise UdvlaError(self._failure or "policy_node could not be configured; see its log")
        if self.trigger_activate() != TransitionCallbackReturn.SUCCESS:
            raise UdvlaError("policy_node could not be activated; see its log")


def make(**parts: Any) -> PolicyNode:
    """Return the node, started if its parameters say so."""
    node = PolicyNode(**parts)
    if node.parameters["autostart"]:
        node.autostart()
    else:
        runtime.announce_ready(node, "waiting to be configured")
    return node


def main() -> int:
    """Run the node."""
    return runtime.run(make)


if __name__ == "__main__":
    sys.exit(main())
