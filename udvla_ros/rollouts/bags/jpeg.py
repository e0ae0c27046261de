"""Raw images to JPEG for recordings by choice: the one place where what is recorded is not what was published."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import numpy as np

from udvla_ros.errors import ObservationError
from udvla_ros.rollouts.bags import schemas
from udvla_ros.rollouts.bags.source import Sample, Source
from udvla_ros.rollouts.images import fill_compressed, to_rgb

RAW, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"


class Compressor:
    """Turns raw images of the cameras into ``<topic>/compressed``; anything else passes as it is.

    Header (stamp and frame), times and sequence numbers stay. Images without colours (depth) are left raw.
    """

    def __init__(self, quality: int = 90) -> None:
        self._quality = quality
        self._sources: dict[Source, Source] = {}

    def source(self, source: Source) -> Source:
        """Return the topic that a source is recorded as."""
        if not (source.camera and source.type == RAW):
            return source
        made = self._sources.get(source)
        if made is None:
            made = Source(
                f"{source.name}/compressed", COMPRESSED, source.qos, schemas.type_hash(COMPRESSED), source.latched, True
            )
            self._sources[source] = made
        return made

    def __call__(self, sample: Sample) -> Sample:
        """Return the message to be recorded in place of this one."""
        made = self.source(sample.source)
        if made is sample.source:
            return sample
        try:
            return sample._replace(source=made, data=compress(sample.data, self._quality))
        except (ObservationError, ValueError, struct.error):
            return sample


def compress(data: bytes, quality: int) -> bytes:
    """Return the CDR of a ``CompressedImage`` (JPEG) with the header and the picture of an ``Image``'s CDR.

    Raises:
        ObservationError: the image has no colours, or is cut.
        struct.error, ValueError: the bytes are no little-endian CDR of an image.
    """
    if len(data) < 4 or not data[1] & 1:
        raise ValueError("not little-endian CDR")
    at = 4 + 8  # past encapsulation and stamp

    def string() -> str:
        nonlocal at
        at += -(at - 4) % 4
        (length,) = struct.unpack_from("<I", data, at)
        text = data[at + 4 : at + 4 + length]
        at += 4 + length
        return text.rstrip(b"\0").decode()

    string()
    header_end = at
    at += -(at - 4) % 4
    height, width = struct.unpack_from("<II", data, at)
    at += 8
    encoding = string()
    big_endian = data[at]
    at += 1
    at += -(at - 4) % 4
    step, length = struct.unpack_from("<II", data, at)
    pixels = np.frombuffer(data, np.uint8, length, at + 8)
    image = SimpleNamespace(
        height=height, width=width, encoding=encoding, is_bigendian=big_endian, step=step, data=pixels
    )
    made = fill_compressed(SimpleNamespace(), to_rgb(image), quality)
    kind, body = made.format.encode() + b"\0", bytes(made.data)
    out = bytearray(data[:header_end])
    for value in (kind, body):
        out += b"\0" * (-(len(out) - 4) % 4)
        out += struct.pack("<I", len(value)) + value
    return bytes(out)
