"""Every knob of the shipped policy is turned while the arm moves: the next chunk obeys, and the arm notices nothing."""

from __future__ import annotations

import json
from contextlib import contextmanager
from itertools import cycle

import numpy as np
import pytest
from harness import environment, skip_where_time_is_not_real
from rcl_interfaces.srv import GetParameters, SetParametersAtomically
from rclpy.parameter import Parameter
from robot_probe import ROBOT
from std_msgs.msg import String

from udvla_ros import graph
from udvla_ros.bringup import Bringup
from udvla_ros.decoding.interface import DecodeOptions
from udvla_ros.evaluation.tuning import tune_file
from udvla_ros.nodes import runtime
from udvla_ros.policy.knobs import KNOBS

BUNDLE = "models/udvla-nano-ur5e"
TURNS = {
    "denoise_steps": 4, "action_steps": 2, "temperature": 0.5, "confidence_threshold": 0.9, "decoder": "independent",
    "foresight": "off", "schedule": "paper", "iterations": 3, "stop_when_ready": True, "remask": 0.1,
    "sampler": "exact", "entropy_bound": 2.0, "samples": 2, "masked_frames": True, "drawn_behind": True,
    "jacobi_start": "current",
}  # fmt: skip
CYCLE = 0.1  # s between two steps of a chunk: a longer silence on arbiter/command would be a cycle missed
SENTENCES = ("touch the blue cube", "touch the green cube", "touch the red cube")


class Turner:
    """Sets parameters of ``policy_node`` and waits for the chunk that obeys."""

    def __init__(self, probe, robot=None) -> None:
        self.probe, self.robot = probe, robot
        self.info = probe.hear(String, "policy_node/chunk_info")
        self.client = probe.node.create_client(SetParametersAtomically, "policy_node/set_parameters_atomically")
        probe.until(self.client.service_is_ready, "the parameter service")

    def set(self, **values):
        """Set all or none; returns the answer."""
        request = SetParametersAtomically.Request()
        request.parameters = [Parameter(n, value=v).to_parameter_msg() for n, v in values.items()]
        future = self.client.call_async(request)
        self.probe.until(future.done, "the parameters")
        return future.result().result

    def turn(self, **values) -> list[dict]:
        """Set values that must be accepted; returns the chunks that came after, the last of which obeys."""
        before = len(self.info)
        answer = self.set(**values)
        assert answer.successful, answer.reason
        fields = {knob.field: None if values[knob.name] == knob.none else values[knob.name]
                  for knob in KNOBS if knob.name in values}  # fmt: skip

        def obeys():
            if self.robot is not None:  # no chunk comes where the arm was taken away: say why at once
                assert self.robot.mode == "POLICY", self.robot.values("arbiter_node")
            chunks = [json.loads(message.data) for message in self.info[before:]]
            if chunks and all(chunks[-1]["options"][name] == value for name, value in fields.items()):
                return chunks
            return None

        return self.probe.until(obeys, f"a chunk with {fields}", 60.0)


@contextmanager
def policy(**arguments: str):
    """The shipped policy beside the simulated arm."""
    (node,) = [n for n in graph.resolve("sim", {"bundle": BUNDLE, **arguments}) if n.name == "policy_node"]
    with Bringup([node], environment(), write=lambda line: None) as made:
        made.wait_ready(120.0)
        yield


@pytest.fixture
def turner(robot, probe, tmp_path):
    """The shipped policy in as few steps as a slow machine can play in real time, and what turns its knobs."""
    path = tmp_path / "quick.yaml"
    path.write_text("/**/policy_node: {ros__parameters: {denoise_steps: 3}}\n")
    with policy(params_file=str(path)):
        yield Turner(probe, robot)


def test_every_knob_in_motion(robot, probe, turner):
    skip_where_time_is_not_real()
    assert set(TURNS) == {knob.name for knob in KNOBS}
    before = robot.violations()
    robot.engage()
    probe.until(lambda: len(turner.info) >= 2, "two chunks", 60.0)
    probe.until(lambda: moving(robot), "motion")
    own = {knob.name: value_of(json.loads(turner.info[-1].data)["options"], knob) for knob in KNOBS}
    began = probe.now()
    sentences = cycle(SENTENCES)
    late: list[int] = []
    previous: dict = {}
    for name, value in TURNS.items():
        if not moving(robot):  # it has done what was asked: something new to do
            assert turner.set(instruction=next(sentences)).successful
            probe.until(lambda: moving(robot), "motion")
        late.append(len(turner.turn(**previous, **{name: value})))
        previous = {name: own[name]}
    turned = probe.until(lambda: (v := robot.values("policy_node")).get(f"knob/{name}") == value and v, "diagnostics")
    assert f"{name} {own[name]} -> {value}" in turned["turned"]
    assert "->" in turned["turned/total_ms_p50"] and float(turned["total_ms_p50"]) > 0
    ended = probe.now()
    refused = turner.set(denoise_steps=5, decoder="autoregressive")
    assert not refused.successful and "attention" in refused.reason
    chunk = turner.turn(**previous)[-1]
    assert chunk["options"]["steps"] == own["denoise_steps"], "half of a bad set was taken"

    commands = [(runtime.to_seconds(m.header.stamp), m) for m in robot.commands]
    commands = [(t, m) for t, m in commands if began < t < ended]
    times = np.array([t for t, _ in commands])
    gaps = np.diff(times)
    q = np.array([m.position[:6] for _, m in commands])
    steps = np.abs(np.diff(q, axis=0))
    p50, p99 = 1e3 * np.quantile(gaps, (0.5, 0.99))
    print(f"gaps between commands: p50 {p50:.1f}, p99 {p99:.1f}, most {1e3 * gaps.max():.1f} ms; largest step "
          f"{steps.max():.4f} rad; chunks until obeyed: {late}")  # fmt: skip
    assert gaps.max() < CYCLE, "a control cycle was missed"
    assert (steps <= ROBOT.limits.velocity * gaps[:, None] * 1.02 + 1e-6).all(), "the command jumped"
    assert max(late) <= 2, "applied at the next chunk, or the one after where it was being computed"
    assert robot.violations() == before
    assert probe.call("arbiter_node/hold").success
    probe.until(robot.resting, "rest")


def moving(robot) -> bool:
    """Return whether the arm is commanded to move now."""
    return bool(np.abs(robot.commands[-1].velocity).max() > 0.02)


def value_of(options: dict, knob):
    """Return a knob's value as a parameter holds it."""
    value = options[knob.field]
    return type(knob.default)(knob.none if value is None else value)


def test_it_starts_with_a_parameter_file_of_the_tuner(bringup, probe, tmp_path):
    options = DecodeOptions(steps=4, action_steps=2, temperature=1.0, stop_when_ready=True, samples=2)
    contents = tune_file.text({"options": vars(options)}, {"threads": 1, "dtype": "float32"}, ["chosen"])
    path = tune_file.write(tmp_path / "chosen.yaml", contents)
    with policy(params_file=str(path)):
        client = probe.node.create_client(GetParameters, "policy_node/get_parameters")
        probe.until(client.service_is_ready, "the parameters")
        names = ["denoise_steps", "action_steps", "temperature", "stop_when_ready", "samples", "threads"]
        future = client.call_async(GetParameters.Request(names=names))
        probe.until(future.done, "the values")
        values = [v.integer_value or v.double_value or v.bool_value for v in future.result().values]
        assert values == [4, 2, 1.0, True, 2, 1]
        assert not Turner(probe).set(threads=2).successful
