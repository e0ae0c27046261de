"""What is recorded: a topic as its publishers offer it, and one message of it as raw CDR."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

# Types of messages so large that they are dropped first and not compressed: a camera's noise does not get smaller.
BULKY = frozenset(
    {"sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/PointCloud2"}
)


@dataclass(frozen=True)
class Source:
    """One topic.

    Attributes:
        name: full name.
        type: such as ``sensor_msgs/msg/Image``.
        qos: YAML of the publishers' QoS profiles, as rosbag2 writes it; see :func:`qos_text`.
        type_hash: ``RIHS01_...`` as the publishers tell it.
        latched: late subscribers get the last message.
        camera: of the robot file; may be recorded compressed.
    """

    name: str
    type: str
    qos: str = ""
    type_hash: str = ""
    latched: bool = False
    camera: bool = False

    @property
    def bulky(self) -> bool:
        """Whether its messages are large."""
        return self.type in BULKY


class Sample(NamedTuple):
    """One message: ns when it was received and published, the publisher's sequence number, raw CDR."""

    source: Source
    received: int
    published: int
    sequence: int
    data: bytes


def qos_text(profiles: list[dict[str, object]]) -> str:
    """Return QoS profiles as the YAML that rosbag2 (version 9) keeps with a channel."""
    import yaml

    return yaml.safe_dump(profiles, sort_keys=False) if profiles else ""


def text_of(data: bytes) -> str:
    """Return the text of a raw ``std_msgs/msg/String``; what is not UTF-8 is replaced.

    Raises:
        ValueError: the bytes are not such a message.
    """
    if len(data) < 8:
        raise ValueError(f"{len(data)} bytes are no std_msgs/msg/String")
    (length,) = struct.unpack_from("<I" if data[1] & 1 else ">I", data, 4)
    if len(data) < 8 + length:
        raise ValueError(f"a text of {length} bytes in {len(data)} bytes")
    return data[8 : 8 + length].rstrip(b"\0").decode("utf-8", "replace")
