"""Messages to record, without ROS: real CDR by ``rosbags``, each one known."""

from __future__ import annotations

from typing import Any

import numpy as np
from rosbags.typesys import Stores, get_typestore

from udvla_ros.rollouts.bags import schemas
from udvla_ros.rollouts.bags.source import Sample, Source, qos_text

STORE = get_typestore(Stores.ROS2_JAZZY)
FOREVER = {"sec": 9223372036, "nsec": 854775807}


def qos(reliability: str = "reliable", durability: str = "volatile") -> list[dict[str, object]]:
    """Return what a recorder is told of one publisher."""
    return [
        {
            "history": "unknown", "depth": 0, "reliability": reliability, "durability": durability,
            "deadline": FOREVER, "lifespan": FOREVER, "liveliness": "automatic",
            "liveliness_lease_duration": FOREVER, "avoid_ros_namespace_conventions": False,
        }
    ]  # fmt: skip


def source(name: str, kind: str = "std_msgs/msg/String", **more: Any) -> Source:
    """Return a topic."""
    reliability = "best_effort" if kind == "sensor_msgs/msg/Image" else "reliable"
    durability = "transient_local" if more.get("latched") else "volatile"
    return Source(name, kind, qos_text(qos(reliability, durability)), schemas.type_hash(kind), **more)


def cdr(kind: str, **fields: Any) -> bytes:
    """Return the bytes of a message."""
    return bytes(STORE.serialize_cdr(STORE.types[kind](**fields), kind))


def header(stamp: float = 1.0, frame: str = "camera") -> Any:
    """Return a header."""
    time = STORE.types["builtin_interfaces/msg/Time"](sec=int(stamp), nanosec=round(stamp % 1 * 1e9))
    return STORE.types["std_msgs/msg/Header"](stamp=time, frame_id=frame)


def string(text: str) -> bytes:
    """Return a String."""
    return cdr("std_msgs/msg/String", data=text)


def image(pixels: np.ndarray, encoding: str = "rgb8", stamp: float = 1.0, frame: str = "camera") -> bytes:
    """Return an Image."""
    height, width = pixels.shape[:2]
    flat = np.ascontiguousarray(pixels).view(np.uint8).ravel()
    return cdr(
        "sensor_msgs/msg/Image", header=header(stamp, frame), height=height, width=width, encoding=encoding,
        is_bigendian=0, step=len(flat) // height, data=flat,
    )  # fmt: skip


def joints(position: float) -> bytes:
    """Return a JointState."""
    return cdr(
        "sensor_msgs/msg/JointState", header=header(position), name=["a", "b"],
        position=np.array([position, -position]), velocity=np.zeros(2), effort=np.zeros(0),
    )  # fmt: skip


def sample(of: Source, k: int, data: bytes, rate: float = 100.0) -> Sample:
    """Return the k-th message of a topic, received at k/rate s."""
    received = 1_800_000_000_000_000_000 + round(k * 1e9 / rate)
    return Sample(of, received, received - 1_000_000, k + 1, data)
