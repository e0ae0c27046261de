"""``policy_node`` in this process, fed by hand, with a scripted policy."""

from __future__ import annotations

import json

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")

from harness import Probe  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from scripted_policy import DT, STEPS, ScriptedPolicy, parts  # noqa: E402
from sensor_msgs.msg import Image, JointState  # noqa: E402
from std_msgs.msg import String  # noqa: E402
from trajectory_msgs.msg import JointTrajectory  # noqa: E402

from udvla_ros.bringup import READY  # noqa: E402
from udvla_ros.errors import UdvlaError  # noqa: E402
from udvla_ros.motion.robot import RobotDescription  # noqa: E402
from udvla_ros.nodes import policy_node, runtime  # noqa: E402
from udvla_ros.nodes.images import fill_image  # noqa: E402
from udvla_ros.policy.observe import Guards  # noqa: E402

ROBOT = RobotDescription.load("ur5e_sim")


def start(*arguments: str) -> None:
    rclpy.init(args=["--ros-args", *(part for a in arguments for part in ("-p", a))])


@pytest.fixture(autouse=True)
def _shut_down():
    yield
    rclpy.try_shutdown()


@pytest.fixture
def node():
    """A node with the scripted policy, configured and active."""
    start("bundle:=scripted", "autostart:=true", "instruction:=sway")
    made = policy_node.make(**parts())
    yield made
    made.close()
    made.destroy_node()


class Rig:
    """The node, and a probe that plays the cameras and the arbiter."""

    def __init__(self, node) -> None:
        self.node, self.probe = node, Probe()
        self.probe._executor = self.executor = SingleThreadedExecutor()
        self.executor.add_node(node)
        self.executor.add_node(self.probe.node)
        self.chunks = self.probe.hear(JointTrajectory, "policy/joint_trajectory", runtime.COMMAND_QOS)
        self.info = self.probe.hear(String, "policy_node/chunk_info")
        self.predicted = self.probe.hear(Image, "policy_node/predicted_image")
        publisher = self.probe.publisher
        self.images = {n: publisher(Image, ROBOT.cameras[n]["topic"], runtime.CAMERA_QOS) for n in ROBOT.cameras}
        self.command = publisher(JointState, "arbiter/command")
        self.mode = publisher(String, "arbiter/mode", runtime.LATCHED_QOS)
        self.instruction = publisher(String, "instruction", runtime.LATCHED_QOS)

    def frame(self, stamp: float | None = None, encoding: str = "rgb8", **changes) -> float:
        """Publish one image of each camera and what was commanded then."""
        stamp = self.probe.now() if stamp is None else stamp
        shuffled = list(zip(ROBOT.joints, ROBOT.home, strict=True))[::-1]
        for ahead in (-0.05, 0.0):
            message = JointState(name=[n for n, _ in shuffled], position=[float(q) for _, q in shuffled])
            message.header.stamp = runtime.to_stamp(stamp + ahead)
            self.command.publish(message)
        for name, publisher in self.images.items():
            channels = () if encoding == "16UC1" else (3,)
            kind = np.uint16 if encoding == "16UC1" else np.uint8
            message = fill_image(Image(), np.full((8, 8, *channels), 90, kind), encoding)
            message.header.stamp = runtime.to_stamp(stamp)
            if name == "wrist" and changes.get("wrist") == "late":
                message.header.stamp = runtime.to_stamp(stamp - 0.3)
            publisher.publish(message)
        return stamp

    def refused(self, words: str) -> str:
        """Wait until a refusal says this."""
        return self.probe.until(lambda: words in self.node._refusal and self.node._refusal, f"'{words}'")

    def refused_while(self, words: str, **frame) -> None:
        """Send frames like this until a refusal says these words."""
        self.probe.until(lambda: self.frame(**frame) and words in self.node._refusal, f"'{words}'")


@pytest.fixture
def rig(node):
    made = Rig(node)
    yield made
    made.probe.close()


def test_chunk_is_stamped_with_its_observation_and_starts_from_the_command(rig):
    stamp = rig.frame()
    chunk = rig.probe.until(lambda: rig.chunks and rig.chunks[0], "a chunk")
    assert runtime.to_seconds(chunk.header.stamp) == pytest.approx(stamp, abs=1e-6)
    assert chunk.joint_names == list(ROBOT.command_names)
    due = [p.time_from_start.sec + p.time_from_start.nanosec * 1e-9 for p in chunk.points]
    np.testing.assert_allclose(due, DT * np.arange(1, STEPS + 1), atol=1e-6)
    first = ROBOT.kinematics.forward(np.array(chunk.points[0].positions[:6]))
    moved = first[:3, 3] - ROBOT.kinematics.forward(ROBOT.home)[:3, 3]
    wanted = 0.012 * np.cos(2 * np.pi * (stamp + DT) / 4.0)
    np.testing.assert_allclose(moved, [0.0, 0.0, wanted], atol=2e-4)
    fingers = {round(p.positions[6], 6) for p in chunk.points}
    assert fingers <= {ROBOT.gripper.open, ROBOT.gripper.closed}


def test_prediction_and_chunk_info_tell_what_the_chunk_was(rig):
    stamp = rig.frame()
    rig.probe.until(lambda: rig.info and rig.predicted, "chunk_info and a predicted image")
    said = json.loads(rig.info[0].data)
    assert said["instruction"] == "sway" and said["bundle_hash"] == "5c417"
    assert said["timings_ms"].keys() >= {"image_encode", "prefill", "denoise", "detokenise", "total"}
    assert said["timings_ms"]["frame_to_trajectory"] > 0
    assert runtime.to_seconds(rig.predicted[0].header.stamp) == pytest.approx(stamp + DT * STEPS, abs=1e-6)


def test_a_new_instruction_is_what_the_next_chunk_obeys(rig):
    rig.frame()
    rig.probe.until(lambda: rig.chunks, "a chunk")
    rig.instruction.publish(String(data="sway slowly"))
    rig.probe.until(lambda: rig.node._instruction == "sway slowly", "the instruction")
    rig.frame()
    rig.probe.until(lambda: len(rig.info) > 1, "another chunk")
    assert json.loads(rig.info[-1].data)["instruction"] == "sway slowly"


def test_rests_while_something_else_has_the_arm(rig):
    rig.mode.publish(String(data="TELEOP"))
    rig.probe.until(lambda: rig.node._mode == "TELEOP", "the mode")
    old = rig.frame()
    rig.probe.until(lambda: rig.node._observations.newest(), "the images")
    rig.mode.publish(String(data="POLICY"))
    rig.probe.until(lambda: rig.node._mode == "POLICY", "the mode")
    new = rig.frame()
    chunk = rig.probe.until(lambda: rig.chunks and rig.chunks[0], "a chunk")
    assert runtime.to_seconds(chunk.header.stamp) == pytest.approx(new, abs=1e-6)
    assert new > old and len(rig.node._policy.seen) == 1


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        ({"encoding": "16UC1"}, "encoding '16UC1' is not a colour image"),
        ({"wrist": "late"}, "ms apart"),
        ({"stamp": 5.0}, "s old"),
    ],
)
def test_refuses_what_it_cannot_see(rig, frame, said):
    rig.node._observations.guards = Guards(max_age=0.5, max_skew=0.0001)
    rig.refused_while(said, **frame)
    assert not rig.chunks


def test_refuses_an_empty_instruction(rig):
    rig.node._instruction = "  "
    rig.frame()
    assert "publish a sentence" in rig.refused("instruction is empty")
    assert not rig.chunks


def test_a_chunk_that_makes_no_sense_is_dropped_and_the_next_is_not(rig):
    policy = rig.node._policy
    for spoil, said in (("nan", "not finite"), ("far", "step"), ("crash", "no such layer")):
        policy.spoil = spoil
        rig.frame()
        rig.refused(said)
    assert not rig.chunks
    policy.spoil = ""
    rig.frame()
    rig.probe.until(lambda: rig.chunks, "a chunk after the bad ones")


def test_every_parameter_is_described_and_numbers_are_ranged_or_read_only(node):
    for entry in policy_node.TABLE:
        descriptor = node.describe_parameter(entry.name)
        assert descriptor.description
        if isinstance(entry.default, (int, float)) and not isinstance(entry.default, bool):
            assert descriptor.integer_range or descriptor.floating_point_range, entry.name


@pytest.mark.parametrize(
    "bad",
    [
        {"denoise_steps": 0},
        {"temperature": -1.0},
        {"confidence_threshold": 1.5},
        {"denoise_steps": "many"},
        {"foresight": "half"},
        {"decoder": "oracle"},
        {"schedule": "none"},
        {"sampler": "best"},
        {"samples": 0},
        {"remask": 1.0},
        {"stop_when_ready": 1},
        {"iterations": 1000},
        {"device": "cuda"},
        {"threads": 4},
        {"dtype": "bfloat16"},
        {"weights": "int8"},
        {"compile": "on"},
    ],
    ids=str,
)
def test_a_bad_set_is_refused_whole(node, bad):
    before = {name: node.get_parameter(name).value for name in ("denoise_steps", "base_seed", *bad)}
    both = [Parameter("base_seed", value=99), *(Parameter(n, value=v) for n, v in bad.items())]
    result = node.set_parameters_atomically(both)
    assert not result.successful and result.reason
    assert {name: node.get_parameter(name).value for name in before} == before


def test_a_good_set_reaches_the_next_inference(rig):
    result = rig.node.set_parameters_atomically(
        [Parameter("denoise_steps", value=3), Parameter("temperature", value=0.5)]
    )
    assert result.successful
    rig.frame()
    rig.probe.until(lambda: rig.chunks, "a chunk")
    options = rig.node._policy.seen[-1].options
    assert (options.steps, options.temperature) == (3, 0.5)


def test_a_turned_knob_tells_its_effect_on_the_latency(rig):
    """Chunks before and after are not mixed, and both medians are there to compare."""
    def chunk(count):
        rig.frame()
        rig.probe.until(lambda: len(rig.info) >= count, f"{count} chunks")
        rig.node._loop.restart()  # the next look is due at once

    chunk(1)
    values = rig.node._report()[2]
    assert values["knob/denoise_steps"] == 5 and values["denoise_ms_p50"] == 3.0 and "turned" not in values
    rig.node._policy.denoise_ms = 1.0
    assert rig.node.set_parameters_atomically([Parameter("denoise_steps", value=2)]).successful
    chunk(2)
    values = rig.node._report()[2]
    assert values["knob/denoise_steps"] == 2 and values["denoise_ms_p50"] == 1.0
    assert values["turned"] == "denoise_steps 5 -> 2" and values["turned/denoise_ms_p50"] == "3 -> 1"
    assert [json.loads(m.data)["options"]["steps"] for m in rig.info] == [5, 2]


def test_the_picture_comes_after_the_chunk_and_only_for_those_who_look(rig):
    order = []
    node = rig.node
    for name, publisher in (("chunk", node._out._chunk), ("picture", node._out._first)):
        publish = publisher.publish
        publisher.publish = lambda message, name=name, publish=publish: (order.append(name), publish(message))
    rig.frame()
    rig.probe.until(lambda: rig.predicted, "a picture")
    assert order == ["chunk", "picture"]
    for publisher in node._out._predicted.values():
        publisher.get_subscription_count = lambda: 0
    node._loop.restart()
    rig.frame()
    rig.probe.until(lambda: len(rig.info) > 1, "another chunk")
    assert order == ["chunk", "picture", "chunk"]


def test_parameters_start_as_the_bundle_says_unless_they_are_given():
    start("bundle:=scripted", "autostart:=true", "temperature:=0.75")
    node = policy_node.make(**parts())
    assert node.get_parameter("denoise_steps").value == 5
    assert node.get_parameter("temperature").value == 0.75
    node.on_cleanup(None)
    assert node.set_parameters([Parameter("denoise_steps", value=3)])[0].successful
    node.on_configure(None)
    assert node.get_parameter("denoise_steps").value == 3, "what was said between cleanup and configure stands"
    node.close()
    node.destroy_node()


def test_words_the_bundle_never_saw_are_named(rig, capfd):
    rig.instruction.publish(String(data="sway antidisestablishment"))
    rig.probe.until(lambda: "never saw the words: antidis" in capfd.readouterr().err, "the warning")


def test_warm_before_active():
    start("bundle:=scripted")
    policy = ScriptedPolicy()
    node = policy_node.make(**parts(policy))
    assert not policy.warm
    node.autostart()
    assert policy.warm
    node.close()
    node.destroy_node()


def test_says_that_it_is_ready_once_it_sees(rig, capfd):
    assert READY not in capfd.readouterr().err
    rig.probe.until(lambda: rig.frame() and READY in capfd.readouterr().err, "the word")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("bundle:=models/none",), "no model.safetensors"),
        (("bundle:=scripted", "robot:=config/robots/none.yaml"), "none.yaml"),
    ],
)
def test_what_is_in_the_way_of_configuring_is_one_line(arguments, said):
    start("autostart:=true", *arguments)
    with pytest.raises(UdvlaError, match=said) as error:
        policy_node.make(**parts())
    assert "\n" not in str(error.value)


def test_parameter_out_of_range_at_start_is_one_line(capsys):
    code = runtime.run(lambda: policy_node.make(**parts()), args=["--ros-args", "-p", "denoise_steps:=0"])
    line = capsys.readouterr().err
    assert code == 2 and "denoise_steps" in line and line.count("\n") == 1
