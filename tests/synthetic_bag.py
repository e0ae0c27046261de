"""A bag like the graph's, made of nothing: a swaying arm seen by two cameras, every message known."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mcap.writer import CompressionType, Writer
from rosbags.typesys import Stores, get_typestore

from udvla_ros.motion.robot import RobotDescription
from udvla_ros.rollouts.bags.source import Sample, Source
from udvla_ros.rollouts.bags.writer import EpisodeWriter

STORE = get_typestore(Stores.ROS2_JAZZY)
ROBOT = RobotDescription.load("ur5e_sim")
NAMES = ROBOT.command_names
BEGIN = 1_800_000_000.0  # s
DT, HORIZON = 0.1, 8
NEVER = {"sec": 2147483647, "nsec": 4294967295}
LABELS = {
    "instruction": "touch the red cube", "outcome": "success", "bundle": "toy", "bundle_hash": "5c417",
    "robot": "ur5e_sim",
}  # fmt: skip


def qos(reliability: int = 1, durability: int = 2, depth: int = 10) -> str:
    """Return a QoS profile as rosbag2 writes it into a channel."""
    import yaml

    profile = {
        "history": 1, "depth": depth, "reliability": reliability, "durability": durability, "deadline": NEVER,
        "lifespan": NEVER, "liveliness": 1, "liveliness_lease_duration": NEVER,
        "avoid_ros_namespace_conventions": False,
    }  # fmt: skip
    return yaml.safe_dump([profile])


def make(kind: str, **values: Any) -> Any:
    """Return a message of the typestore."""
    return STORE.types[kind](**values)


def header(stamp: float, frame: str = "") -> Any:
    """Return a std_msgs/Header."""
    whole = int(stamp)
    time = make("builtin_interfaces/msg/Time", sec=whole, nanosec=round((stamp - whole) * 1e9) % 1_000_000_000)
    return make("std_msgs/msg/Header", stamp=time, frame_id=frame)


def text(value: str) -> Any:
    """Return a std_msgs/String."""
    return make("std_msgs/msg/String", data=value)


def image(stamp: float, pixels: np.ndarray) -> Any:
    """Return a sensor_msgs/Image in rgb8."""
    height, width = pixels.shape[:2]
    return make(
        "sensor_msgs/msg/Image", header=header(stamp, "camera"), height=height, width=width, encoding="rgb8",
        is_bigendian=0, step=3 * width, data=np.ascontiguousarray(pixels).reshape(-1),
    )  # fmt: skip


def joint_state(stamp: float, names: tuple[str, ...], position: np.ndarray, velocity: np.ndarray) -> Any:
    """Return a sensor_msgs/JointState."""
    return make(
        "sensor_msgs/msg/JointState", header=header(stamp), name=list(names), position=np.asarray(position, float),
        velocity=np.asarray(velocity, float), effort=np.zeros(0),
    )  # fmt: skip


def trajectory(stamp: float, points: np.ndarray) -> Any:
    """Return a trajectory_msgs/JointTrajectory of positions ``DT`` apart."""
    empty = np.zeros(0)
    rows = [
        make(
            "trajectory_msgs/msg/JointTrajectoryPoint", positions=row, velocities=empty, accelerations=empty,
            effort=empty, time_from_start=make(
                "builtin_interfaces/msg/Duration", sec=int((k + 1) * DT + 1e-9),
                nanosec=round(((k + 1) * DT % 1.0) * 1e9) % 1_000_000_000,
            ),
        )
        for k, row in enumerate(points)
    ]  # fmt: skip
    return make("trajectory_msgs/msg/JointTrajectory", header=header(stamp), joint_names=list(NAMES), points=rows)


def sway(time: float) -> tuple[np.ndarray, np.ndarray]:
    """Return commanded positions and velocities [7] at a time since the beginning; rests until 1 s and at the end."""
    moving = 1.0 < time < 5.0
    angle = 2 * np.pi * (time - 1.0) / 4.0
    offset = 0.15 * (1.0 - np.cos(angle)) if moving else 0.0
    speed = 0.15 * 2 * np.pi / 4.0 * np.sin(angle) if moving else 0.0
    position, velocity = np.append(ROBOT.home, 0.0), np.zeros(7)
    position[0] += offset
    velocity[0] = speed
    position[6] = np.clip((time - 3.0) / 0.5, 0.0, 1.0) * 0.8
    return position, velocity


def picture(camera: str, time: float) -> np.ndarray:
    """Return what a camera sees: a bar whose place tells the time."""
    height, width = {"front": (48, 64), "wrist": (32, 32)}[camera]
    pixels = np.full((height, width, 3), 90, np.uint8)
    at = int(time * 8) % width
    pixels[:, at : at + 4] = (220, 40, 40)
    return pixels


@dataclass
class Recording:
    """Messages to write: (log time s, topic, type, message); ``spoil`` hooks change them."""

    duration: float = 6.0
    camera_hz: float = 12.0
    joints_hz: float = 50.0
    labels: dict[str, str] = field(default_factory=lambda: dict(LABELS))
    messages: list[tuple[float, str, str, Any]] = field(default_factory=list)
    namespace: str = ""

    def add(self, log: float, topic: str, kind: str, message: Any) -> None:
        """Take one message."""
        prefix = f"/{self.namespace}" if self.namespace else ""
        self.messages.append((BEGIN + log, topic if topic.startswith("/") else f"{prefix}/{topic}", kind, message))

    def fill(self) -> Recording:
        """Add everything that the graph publishes in such an episode."""
        state, string = "sensor_msgs/msg/JointState", "std_msgs/msg/String"
        for k in range(int(self.duration * 100)):
            t = k / 100
            position, velocity = sway(t)
            self.add(t, "arbiter/command", state, joint_state(BEGIN + t, NAMES, position, velocity))
        for k in range(int(self.duration * self.joints_hz)):
            t = k / self.joints_hz
            position, velocity = sway(max(0.0, t - 0.02))
            # The driver's order is not the kinematic one.
            order = [2, 1, 0, 3, 4, 5, 6]
            names = tuple(NAMES[i] for i in order)
            message = joint_state(BEGIN + t, names, position[order], velocity[order])
            self.add(t + 0.001, "joint_states", state, message)
        for k in range(int(self.duration * self.camera_hz)):
            t = k / self.camera_hz
            for camera in ("front", "wrist"):
                seen = image(BEGIN + t, picture(camera, t))
                self.add(t + 0.004, f"{camera}/image_raw", "sensor_msgs/msg/Image", seen)
        for t, mode, why in ((0.0, "HOLD", "started"), (0.9, "POLICY", "engaged"), (5.4, "HOLD", "hold was called")):
            if t < self.duration:
                self.add(t, "arbiter/mode_reason", string, text(why))
                self.add(t + 0.0005, "arbiter/mode", string, text(mode))
        self.add(0.002, "instruction", string, text(self.labels.get("instruction", "")))
        for number, t in enumerate(np.arange(1.0, min(5.0, self.duration - 1.0) - 1e-9, 0.5)):
            frame = np.floor(t * self.camera_hz) / self.camera_hz
            self.chunk(number, float(frame), float(t) + 0.12)
        self.messages.sort(key=lambda entry: entry[0])
        return self

    def chunk(self, number: int, seen: float, heard: float) -> None:
        """Add one chunk with its picture and what is told of it."""
        stamp, horizon = BEGIN + seen, DT * HORIZON
        points = np.array([sway(seen + (k + 1) * DT)[0] for k in range(HORIZON)])
        self.add(heard, "policy/joint_trajectory", "trajectory_msgs/msg/JointTrajectory", trajectory(stamp, points))
        for camera, topic in (("front", "predicted_image"), ("wrist", "predicted_image/wrist")):
            message = image(stamp + horizon, picture(camera, seen + horizon))
            self.add(heard + 0.001, f"policy_node/{topic}", "sensor_msgs/msg/Image", message)
        info = {
            "chunk": number + 1, "stamp": stamp, "horizon": horizon, "dt": DT, "seed": 11 * number,
            "instruction": self.labels.get("instruction", ""), "bundle": "toy", "bundle_hash": "5c417",
            "image_stamps": {"front": stamp, "wrist": stamp},
            "timings_ms": {"total": 60.0 + number, "frame_to_trajectory": 110.0 + 3 * number, "denoise": 40.0},
        }  # fmt: skip
        self.add(heard + 0.002, "policy_node/chunk_info", "std_msgs/msg/String", text(json.dumps(info)))

    def drop(self, unwanted: Callable[[float, str, Any], bool]) -> Recording:
        """Leave messages out: ``unwanted(s since the beginning, topic, message)``."""
        self.messages = [m for m in self.messages if not unwanted(m[0] - BEGIN, m[1], m[3])]
        return self

    def replace(self, topic: str, change: Callable[[float, Any], Any]) -> Recording:
        """Change the messages of a topic: ``change(s since the beginning, message)``."""
        self.messages = [
            (t, name, kind, change(t - BEGIN, m) if name == topic else m) for t, name, kind, m in self.messages
        ]
        return self

    def write(
        self, folder: Path, chunk_size: int = 64 * 1024, compression: CompressionType = CompressionType.LZ4
    ) -> Path:
        """Write the MCAP file of an episode and return it; ``metadata.yaml`` is :func:`finished`'s."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{folder.name}_0.mcap"
        with path.open("wb") as handle:
            writer = Writer(handle, chunk_size=chunk_size, compression=compression)
            writer.start(profile="ros2", library="synthetic")
            opening = {name: value for name, value in self.labels.items() if name != "outcome"}
            writer.add_metadata("udvla_ros", opening)
            channels: dict[str, int] = {}
            schemas: dict[str, int] = {}
            counts: dict[str, int] = {}
            for time, topic, kind, message in self.messages:
                if kind not in schemas:
                    definition = STORE.generate_msgdef(kind, ros_version=2)[0]
                    schemas[kind] = writer.register_schema(kind, "ros2msg", definition.encode())
                if topic not in channels:
                    camera = topic.endswith("image_raw")
                    latched = topic.rsplit("/", 1)[-1] in ("mode", "mode_reason", "instruction")
                    channels[topic] = writer.register_channel(
                        topic, "cdr", schemas[kind], {
                            "offered_qos_profiles": qos(2 if camera else 1, 1 if latched else 2, 1 if camera else 10),
                            "topic_type_hash": STORE.hash_rihs01(kind),
                        },
                    )  # fmt: skip
                counts[topic] = counts.get(topic, 0) + 1
                nanoseconds = round((time - BEGIN) * 1e9) + int(BEGIN) * 1_000_000_000
                writer.add_message(
                    channels[topic], nanoseconds, bytes(STORE.serialize_cdr(message, kind)), nanoseconds, counts[topic]
                )
            writer.add_metadata("udvla_ros", self.labels)
            writer.finish()
        return path


def recorded(recording: Recording, folder: Path) -> Path:
    """Write a recording as the recorder does and return the folder; flushed every half second of the messages."""
    writer = EpisodeWriter(folder, {k: v for k, v in recording.labels.items() if k != "outcome"}, reserve=0)
    flushed = BEGIN
    for time, topic, kind, message in recording.messages:
        camera = topic.endswith("image_raw")
        source = Source(topic, kind, qos(2 if camera else 1), STORE.hash_rihs01(kind))
        nanoseconds = round((time - BEGIN) * 1e9) + int(BEGIN) * 1_000_000_000
        data = bytes(STORE.serialize_cdr(message, kind))
        writer.write(Sample(source, nanoseconds, nanoseconds, 0, data))
        if time - flushed > 0.5:
            writer.flush()
            flushed = time
    writer.close(recording.labels)
    return folder


def episode(folder: Path, **options: Any) -> Path:
    """Write a whole, good episode and return its folder."""
    return finished(Recording(**options).fill(), folder)


def finished(recording: Recording, folder: Path, **options: Any) -> Path:
    """Write a recording with its ``metadata.yaml`` and return the folder."""
    from udvla_ros.rollouts.bags.repair import write_metadata

    recording.write(folder, **options)
    write_metadata(folder)
    return folder
