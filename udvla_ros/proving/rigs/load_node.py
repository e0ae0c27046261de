"""Cameras and joint states at a real robot's rates, of no robot, counted: what measurements of a recorder run on.

Publishes nothing until ``~/begin``, stops at ``~/end`` and answers with what it published, by topic.
"""

from __future__ import annotations

import array
import json
import sys
import threading
import time
from collections import Counter
from typing import Any

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from udvla_ros.motion.robot import RobotDescription
from udvla_ros.nodes import runtime
from udvla_ros.nodes.images import fill_image
from udvla_ros.nodes.parameters import Entry, Parameters

TABLE = (
    Entry("robot", "config/robots/ur5e_sim.yaml", "robot file", read_only=True),
    Entry("plays", "cameras", "what it publishes", choices=("cameras", "joints", "policy"), read_only=True),
    Entry("hz", 30.0, "of each topic", 0.1, 2000.0, read_only=True),
    Entry("width", 640, "of images", 8, 4096, read_only=True),
    Entry("height", 480, "of images", 8, 4096, read_only=True),
)
PICTURES = 8  # different ones, in turn


def noisy_picture(width: int, height: int, seed: int) -> np.ndarray:
    """Return a picture [h, w, 3] that compresses as badly as a camera's does: a gradient with sensor noise."""
    y, x = np.mgrid[:height, :width]
    base = np.stack([255 * x / width, 255 * y / height, 127 + 60 * np.sin(x / 20 + seed)], axis=-1)
    return np.clip(base + np.random.default_rng(seed).normal(0, 4, base.shape), 0, 255).astype(np.uint8)


class LoadNode(Node):
    """Publishes and counts."""

    def __init__(self) -> None:
        super().__init__("load_node")
        values = Parameters(self, TABLE).values()
        self._robot = RobotDescription.load(values["robot"])
        self._period = 1.0 / values["hz"]
        self._messages: list[tuple[str, Any, list[Any]]] = []  # topic, publisher, messages to send in turn
        size = (values["width"], values["height"])
        getattr(self, f"_make_{values['plays']}")(size)
        self._counts: Counter[str] = Counter()
        self._going = threading.Event()
        self._resting = threading.Event()
        self._end = threading.Event()
        self.create_service(Trigger, "~/begin", self._on_begin)
        self.create_service(Trigger, "~/end", self._on_end)
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._thread.start()
        runtime.announce_ready(self, f"plays {values['plays']} at {values['hz']:g} Hz")

    def _add(self, kind: Any, topic: str, qos: Any, messages: list[Any]) -> None:
        publisher = self.create_publisher(kind, topic, qos)
        self._messages.append((publisher.topic_name, publisher, messages))

    def _images(self, size: tuple[int, int], frame: str) -> list[Image]:
        made = [fill_image(Image(), noisy_picture(*size, seed), "rgb8") for seed in range(PICTURES)]
        for message in made:
            message.header.frame_id = frame
        return made

    def _make_cameras(self, size: tuple[int, int]) -> None:
        for name, camera in self._robot.cameras.items():
            self._add(Image, camera["topic"], runtime.CAMERA_QOS, self._images(size, f"{name}_camera_optical_frame"))

    def _make_joints(self, _: tuple[int, int]) -> None:
        names = list(self._robot.command_names)
        fingers = [self._robot.gripper.open] if self._robot.gripper is not None else []
        message = JointState(name=names, position=[*self._robot.home.tolist(), *fingers])
        message.velocity = array.array("d", [0.0] * len(names))
        self._add(JointState, self._robot.topics.get("joint_states", "joint_states"), runtime.STATE_QOS, [message])

    def _make_policy(self, size: tuple[int, int]) -> None:
        """What a policy publishes beside its chunks: pictures of the future, and how each chunk came about."""
        first, *others = self._robot.cameras
        for topic in ("predicted_image", *(f"predicted_image/{name}" for name in others)):
            self._add(Image, f"policy_node/{topic}", runtime.STATE_QOS, self._images(size, first))
        info = {"bundle": "none: load_node", "bundle_hash": "0" * 64, "actions": [[0.0] * 7] * 16}
        self._add(String, "policy_node/chunk_info", runtime.STATE_QOS, [String(data=json.dumps(info))])

    def _on_begin(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._counts.clear()
        self._resting.clear()
        self._going.set()
        response.success = True
        return response

    def _on_end(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._going.clear()
        response.success = self._resting.wait(5.0)
        response.message = json.dumps(self._counts)
        return response

    def _run(self) -> None:
        while not self._end.is_set():
            if not self._going.wait(0.05):
                continue
            begin, k = time.monotonic(), 0
            while self._going.is_set() and not self._end.is_set():
                stamp = runtime.to_stamp(runtime.now(self))
                for topic, publisher, messages in self._messages:
                    message = messages[k % len(messages)]
                    if hasattr(message, "header"):
                        message.header.stamp = stamp
                    publisher.publish(message)
                    self._counts[topic] += 1
                k += 1
                wait = begin + k * self._period - time.monotonic()
                if wait > 0:
                    time.sleep(wait)
                else:  # late: the next one is due a period from now, not all the missed ones at once
                    begin = time.monotonic() - k * self._period
            self._resting.set()

    def close(self) -> None:
        """End the thread."""
        self._end.set()
        self._thread.join(2.0)


def main() -> int:
    """Run the node."""
    return runtime.run(LoadNode)


if __name__ == "__main__":
    sys.exit(main())
