"""``sensor_msgs/Image`` and ``CompressedImage`` to arrays and back: one path for live messages and for bags.

The layout follows REP-118 and ``sensor_msgs/image_encodings``. Messages are duck-typed, so that nothing
here needs ROS: anything with the fields of the message will do, be it of rclpy or read from a bag.
"""

from __future__ import annotations

import array
import sys
from typing import Any

import cv2
import numpy as np

from udvla_ros.errors import ObservationError

# encoding -> (type of one number, numbers per pixel)
ENCODINGS: dict[str, tuple[type, int]] = {
    "rgb8": (np.uint8, 3),
    "bgr8": (np.uint8, 3),
    "rgba8": (np.uint8, 4),
    "bgra8": (np.uint8, 4),
    "mono8": (np.uint8, 1),
    "16UC1": (np.uint16, 1),
    "32FC1": (np.float32, 1),
}
# Where red, green and blue stand in each colour encoding.
_RGB_CHANNELS = {"rgb8": (0, 1, 2), "bgr8": (2, 1, 0), "rgba8": (0, 1, 2), "bgra8": (2, 1, 0), "mono8": (0, 0, 0)}


def to_array(message: Any, topic: str = "image") -> np.ndarray:
    """Return the pixels as [h, w] or [h, w, c] in the message's own encoding and the machine's byte order.

    Raises:
        ObservationError: unknown encoding, or the data do not fill the rows that the header promises.
    """
    if message.encoding not in ENCODINGS:
        raise ObservationError(
            f"{topic}: encoding '{message.encoding}' is not supported; publish one of {', '.join(ENCODINGS)}"
        )
    kind, channels = ENCODINGS[message.encoding]
    dtype = np.dtype(kind).newbyteorder(">" if message.is_bigendian else "<")
    height, width, step = message.height, message.width, message.step
    row = width * channels * dtype.itemsize
    if height < 1 or width < 1 or step < row:
        raise ObservationError(
            f"{topic}: {width}x{height} {message.encoding} needs rows of {row} bytes, the header says {step}"
        )
    data = np.frombuffer(message.data, dtype=np.uint8)
    needed = step * (height - 1) + row  # the last row may come without its padding
    if data.size < needed:
        raise ObservationError(f"{topic}: {data.size} bytes of data where {needed} are needed; the image is cut")
    if data.size < step * height:
        data = np.pad(data, (0, step * height - data.size))
    rows = data[: step * height].reshape(height, step)[:, :row]
    pixels = np.ascontiguousarray(rows).view(dtype).reshape(height, width, channels)
    pixels = pixels.astype(np.dtype(kind), copy=False)
    return pixels[..., 0] if channels == 1 else pixels


def to_rgb(message: Any, topic: str = "image") -> np.ndarray:
    """Return a colour or grey image as uint8 RGB [h, w, 3], contiguous.

    Raises:
        ObservationError: the encoding carries no colours a policy could see (depth, say), or is unknown.
    """
    pixels = to_array(message, topic)
    if message.encoding not in _RGB_CHANNELS:
        raise ObservationError(
            f"{topic}: encoding '{message.encoding}' is not a colour image; publish one of {', '.join(_RGB_CHANNELS)}"
        )
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if message.encoding == "rgb8":
        return pixels
    return np.ascontiguousarray(pixels[..., _RGB_CHANNELS[message.encoding]])


def compressed_to_rgb(message: Any, topic: str = "image") -> np.ndarray:
    """Return a ``CompressedImage`` (JPEG or PNG) as uint8 RGB [h, w, 3].

    Raises:
        ObservationError: the bytes are not a picture that OpenCV reads.
    """
    data = np.frombuffer(message.data, dtype=np.uint8)
    pixels = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if pixels is None:
        raise ObservationError(
            f"{topic}: {data.size} bytes of format '{message.format}' cannot be decoded; publish jpeg or png"
        )
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def message_to_rgb(message: Any, topic: str = "image") -> np.ndarray:
    """Return an ``Image`` or a ``CompressedImage``, told apart by their fields, as uint8 RGB [h, w, 3].

    Raises:
        ObservationError: as :func:`to_rgb` and :func:`compressed_to_rgb` do.
    """
    convert = to_rgb if hasattr(message, "encoding") else compressed_to_rgb
    return convert(message, topic)


def fill_image(message: Any, pixels: np.ndarray, encoding: str = "rgb8") -> Any:
    """Write pixels [h, w] or [h, w, c] into a ``sensor_msgs/Image`` and return it; the header is left alone.

    Raises:
        ObservationError: the array is not what the encoding says.
    """
    if encoding not in ENCODINGS:
        raise ObservationError(f"encoding '{encoding}' is not supported; use one of {', '.join(ENCODINGS)}")
    kind, channels = ENCODINGS[encoding]
    planes = pixels[..., None] if pixels.ndim == 2 else pixels
    if planes.dtype != kind or planes.ndim != 3 or planes.shape[2] != channels:
        raise ObservationError(
            f"encoding '{encoding}' needs {np.dtype(kind)} pixels with {channels} channels, "
            f"got {pixels.dtype} of shape {pixels.shape}"
        )
    message.height, message.width = planes.shape[:2]
    message.encoding = encoding
    message.is_bigendian = int(sys.byteorder == "big")
    message.step = planes.shape[1] * channels * planes.dtype.itemsize
    # An array.array is taken by reference; bytes or an ndarray would be checked number by number.
    message.data = array.array("B", planes.tobytes())
    return message


def fill_compressed(message: Any, pixels: np.ndarray, quality: int = 90) -> Any:
    """Write RGB pixels [h, w, 3] as JPEG into a ``sensor_msgs/CompressedImage`` and return it."""
    done, data = cv2.imencode(
        ".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    if not done:
        raise ObservationError(f"an image of shape {pixels.shape} cannot be encoded as JPEG")
    message.format = "rgb8; jpeg compressed bgr8"
    message.data = array.array("B", data.tobytes())
    return message
