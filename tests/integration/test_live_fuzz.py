"""Malformed but type-correct messages at every topic: no node ends, none has a traceback, all still answer.

Ten seconds here; a minute with ``UDVLA_FUZZ_SECONDS=60``.
"""

from __future__ import annotations

import array
import os
import random
import subprocess
import sys
import time

import pytest
from builtin_interfaces.msg import Duration, Time
from harness import environment, ros
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image, JointState, Joy
from std_msgs.msg import Bool, String
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from udvla_ros.motion.robot import RobotDescription

pytestmark = pytest.mark.integration
SECONDS = float(os.environ.get("UDVLA_FUZZ_SECONDS", "10"))
ROBOT = RobotDescription.load("ur5e_sim")
NODES = (
    ["scripted_policy", "--ros-args", "-p", "bundle:=scripted", "-p", "autostart:=true"],
    ["udvla_ros.nodes.arbiter_node"],
    ["udvla_ros.nodes.recorder_node", "--ros-args", "-p", "record_dir:={tmp}"],
)  # fmt: skip
NUMBERS = (0.0, 1.0, -1.0, 0.3, float("nan"), float("inf"), -1e308, 1e308, 5e-324)


class Thrower:
    """Makes messages of a seed."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)

    def numbers(self, most: int = 9) -> list[float]:
        return [self.dice.choice(NUMBERS) for _ in range(self.dice.randrange(most))]

    def names(self) -> list[str]:
        known = [*ROBOT.command_names, "wheel", "", "\u202e\n"]
        return [self.dice.choice(known) for _ in range(self.dice.randrange(9))] or list(ROBOT.command_names)

    def stamp(self) -> Time:
        now = int(time.time())
        sec = self.dice.choice([0, now, now - 1, now + 100, 2**31 - 1, -5])
        return Time(sec=sec, nanosec=self.dice.choice([0, 999_999_999, 4_000_000_000]))

    def text(self) -> String:
        odd = ["", "\n", "stop", "\x00", "POLICY", "HOLD", "{", "null", "[1]", '{"state": 3}', "x" * 5000, "拿起方块"]
        return String(data=self.dice.choice(odd))

    def joints(self) -> JointState:
        message = JointState(name=self.names(), position=self.numbers(), velocity=self.numbers(), effort=self.numbers())
        message.header.stamp = self.stamp()
        return message

    def trajectory(self) -> JointTrajectory:
        message = JointTrajectory(joint_names=self.names())
        message.header.stamp = self.stamp()
        for _ in range(self.dice.randrange(5)):
            after = Duration(sec=self.dice.choice([0, 1, -1, 2**31 - 1]), nanosec=self.dice.choice([0, 1, 2**32 - 1]))
            message.points.append(
                JointTrajectoryPoint(positions=self.numbers(), velocities=self.numbers(), time_from_start=after)
            )
        return message

    def data(self) -> array.array:
        return array.array("B", self.dice.randbytes(self.dice.choice([0, 1, 100, 9216])))

    def image(self) -> Image:
        encoding = self.dice.choice(["rgb8", "mono8", "16UC1", "yuv422", "", "\n"])
        height, width, step = (self.dice.choice([0, 1, 48, 64, 192, 2**32 - 1]) for _ in range(3))
        message = Image(height=height, width=width, step=step, encoding=encoding, data=self.data())
        message.header.stamp = self.stamp()
        return message

    def picture(self) -> CompressedImage:
        return CompressedImage(format=self.dice.choice(["jpeg", "", "\n"]), data=self.data())

    def lock(self) -> Bool:
        return Bool(data=False)

    def joy(self) -> Joy:
        return Joy(axes=self.numbers(), buttons=[self.dice.choice([0, 1, -1, 2**31 - 1]) for _ in range(4)])


TOPICS = {
    "joint_states": (JointState, "joints"), "arbiter/command": (JointState, "joints"),
    "policy/joint_trajectory": (JointTrajectory, "trajectory"),
    "teleop/joint_trajectory": (JointTrajectory, "trajectory"),
    "front/image_raw": (Image, "image"), "wrist/image_raw": (Image, "image"), "instruction": (String, "text"),
    "arbiter/mode": (String, "text"), "policy/hand_over": (String, "text"), "policy_node/chunk_info": (String, "text"),
    "sim_node/episode": (String, "text"), "emergency_stop": (Bool, "lock"), "joy": (Joy, "joy"),
}  # fmt: skip


def test_nothing_that_is_published_ends_a_node(tmp_path):
    logs = [(tmp_path / f"{k}.log").open("w+b") for k in range(len(NODES))]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", *(word.format(tmp=tmp_path) for word in words)], env=environment(), stdout=log,
            stderr=subprocess.STDOUT,
        )
        for words, log in zip(NODES, logs, strict=True)
    ]  # fmt: skip
    thrown = 0
    try:
        with ros() as probe:
            for service in ("arbiter_node/hold", "recorder_node/start"):
                probe.call(service)
            probe.until(lambda: b"bundle 'scripted'" in (tmp_path / "0.log").read_bytes(), "the policy")
            best = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
            publishers = {topic: probe.node.create_publisher(kind, topic, best) for topic, (kind, _) in TOPICS.items()}
            thrower, end = Thrower(7), time.monotonic() + SECONDS
            while time.monotonic() < end:
                for topic, (_, make) in TOPICS.items():
                    publishers[topic].publish(getattr(thrower, make)())
                    thrown += 1
                probe._executor.spin_once(timeout_sec=0.005)
            assert all(process.poll() is None for process in processes), "a node is dead"
            assert probe.call("arbiter_node/stop").success
            probe.call("recorder_node/discard")
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)
    for log in logs:
        log.seek(0)
        said = log.read().decode(errors="replace")
        assert "Traceback" not in said, said[-3000:]
    print(f"threw {thrown} messages in {SECONDS:g} s at {len(TOPICS)} topics")
