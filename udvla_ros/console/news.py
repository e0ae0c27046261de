"""What the page is told: messages of the graph, live or from a bag, as small JSON texts and JPEGs, each under a key.

Of a key only the newest counts, but for those of :data:`SERIES`, of which the page draws every one.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from udvla_ros.motion.robot import RobotDescription
from udvla_ros.rollouts.images import message_to_rgb

LIVE, PREDICTED = 0, 1
SERIES = ("scores",)
WIDEST = 480  # pixels of a picture on the page; smaller ones go as they are
QUALITY = 80
# relative topic -> key of its text
TEXTS = {
    "arbiter/mode": "mode", "arbiter/mode_reason": "reason", "instruction": "instruction",
    "recorder_node/status": "recorder", "sim_node/episode": "episode", "policy/hand_over": "hand_over",
}  # fmt: skip
DIAGNOSED = ("policy_node", "arbiter_node", "recorder_node")


class News(NamedTuple):
    """One thing to tell: a JSON value, or a picture with its header."""

    key: str
    value: Any = None
    picture: bytes = b""

    def encoded(self) -> str | bytes:
        """Return it as one message of the page's socket."""
        return self.picture or json.dumps({"key": self.key, "value": self.value}, separators=(",", ":"))


def topics_of(robot: RobotDescription) -> dict[str, str]:
    """Return the topics the page shows and their types, relative as the nodes name them."""
    texts = dict.fromkeys([*TEXTS, "policy_node/scores", "policy_node/chunk_info"], "std_msgs/msg/String")
    joints = (robot.topics.get("joint_states", "joint_states"), "arbiter/command")
    states = dict.fromkeys(joints, "sensor_msgs/msg/JointState")
    return texts | states | {"/diagnostics": "diagnostic_msgs/msg/DiagnosticArray"}


def predicted_topics(cameras: Sequence[str]) -> dict[str, str]:
    """Return the topic of each camera's predicted picture: the first one's has no name."""
    return {
        name: "policy_node/predicted_image" + (f"/{name}" if number else "") for number, name in enumerate(cameras)
    }


def tell(topic: str, message: Any, robot: RobotDescription) -> Iterator[News]:
    """Return what a message that is no picture tells; nothing where it cannot be read."""
    if topic in TEXTS:
        text = message.data
        yield News(TEXTS[topic], _mapping(text) if topic in ("recorder_node/status", "sim_node/episode") else text)
    elif topic == "policy_node/scores":
        yield News("scores", _mapping(message.data))
    elif topic == "policy_node/chunk_info":
        said = _mapping(message.data)
        kept = ("chunk", "stamp", "horizon", "timings_ms", "played_steps", "options", "bundle", "seed", "instruction")
        yield News("chunk", {name: said[name] for name in kept if name in said})
    elif topic == "/diagnostics":
        for status in message.status:
            name = status.name.rpartition("/")[2]
            if name in DIAGNOSED:
                level = status.level
                values = {value.key: value.value for value in status.values}
                level = level[0] if isinstance(level, (bytes, bytearray)) else int(level)
                yield News(f"diagnostics/{name}", {"level": level, "message": status.message, "values": values})
    elif topic == "arbiter/command":
        yield News("command", positions(message))
    elif topic == robot.topics.get("joint_states", "joint_states"):
        yield News("joints", positions(message))


def positions(message: Any) -> dict[str, float]:
    """Return positions by joint."""
    return {name: round(float(q), 4) for name, q in zip(message.name, message.position, strict=False)}


def about(robot: RobotDescription) -> News:
    """Return what the page has to know of the robot before anything comes."""
    limits = robot.limits
    listed = {
        name: [round(float(low), 4), round(float(high), 4)]
        for name, low, high in zip(robot.joints, limits.lower, limits.upper, strict=True)
    }
    gripper = robot.gripper.joint if robot.gripper is not None else ""
    if robot.gripper is not None:
        listed[gripper] = sorted((float(robot.gripper.open), float(robot.gripper.closed)))
    return News(
        "robot", {"name": robot.name, "cameras": list(robot.cameras), "limits": listed, "gripper": gripper}
    )


def picture(kind: int, camera: str, stamp: float, message: Any, topic: str) -> News:
    """Return a picture: kind, length of the name, stamp (s, float64), name, JPEG.

    Raises:
        ObservationError: the message cannot be read.
    """
    if hasattr(message, "format") and "jp" in message.format and len(message.data) < 200_000:
        jpeg = bytes(message.data)  # somebody has done the work
    else:
        jpeg = as_jpeg(message_to_rgb(message, topic))
    name = camera.encode()
    header = struct.pack("<BBd", kind, len(name), stamp) + name
    return News(f"{('picture', 'predicted')[kind]}/{camera}", None, header + jpeg)


def as_jpeg(image: np.ndarray) -> bytes:
    """Return uint8 RGB ``[H, W, 3]`` as a JPEG no wider than :data:`WIDEST`."""
    height, width = image.shape[:2]
    factor = -(-width // WIDEST)  # whole pixels are averaged: another factor takes twenty times as long
    if factor > 1:
        image = cv2.resize(image, (width // factor, height // factor), interpolation=cv2.INTER_AREA)
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    # The pictures of a small policy are small: no colour may be halved, and every pixel is looked at.
    small = width < 200
    options = [cv2.IMWRITE_JPEG_QUALITY, 95 if small else QUALITY]
    if small:
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return cv2.imencode(".jpg", bgr, options)[1].tobytes()


def _mapping(text: str) -> Mapping[str, Any]:
    try:
        said = json.loads(text)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
