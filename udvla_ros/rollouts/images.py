"""``sensor_msgs/Image`` and ``CompressedImage`` to arrays and back: one path for live messages and for bags.

The layout follows REP-118 and ``sensor_msgs/image_encodings``. Messages are duck-typed, so that nothing
here needs ROS: anything with the fields of the message will do, be it of rclpy or read from a bag.
"""

from __future__ import annotations

import array
import sys
import zlib
from typing import Any

import cv2
import numpy as np
import simplejpeg

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
MOST_PIXELS = 64 * 2**20  # of one picture; more is a damaged header
HOLE = bytes(16)
STANDARD = bytes.fromhex("0002010303020403050504040000017d")  # how many code words are how long: luminance AC, T.81 K.5
# Where red, green and blue stand in each colour encoding.
_RGB_CHANNELS = {"rgb8": (0, 1, 2), "bgr8": (2, 1, 0), "rgba8": (0, 1, 2), "bgra8": (2, 1, 0), "mono8": (0, 0, 0)}


def to_array(message: Any, topic: str = "image") -> np.ndarray:
    """Return the pixels as [h, w] or [h, w, c] in the message's own encoding and the machine's byte order.

    Raises:
        ObservationError: unknown encoding, or the data do not fill the rows that the header promises.
    """
    if message.encoding not in ENCODINGS:
        raise ObservationError(
            f"{topic}: encoding '{' '.join(message.encoding.split())[:40]}' is not supported; "
            f"publish one of {', '.join(ENCODINGS)}"
        )
    kind, channels = ENCODINGS[message.encoding]
    dtype = np.dtype(kind).newbyteorder(">" if message.is_bigendian else "<")
    height, width, step = message.height, message.width, message.step
    row = width * channels * dtype.itemsize
    if height < 1 or width < 1 or step < row or height * width > MOST_PIXELS:
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


def compressed_to_rgb(message: Any, topic: str = "image", promised: str = "") -> np.ndarray:
    """Return a ``CompressedImage`` (JPEG or PNG) as uint8 RGB [h, w, 3].

    What it is says its content, not its ``format``. A picture that is damaged anywhere is refused whole: decoders fill
    what is missing with grey or with what came before.

    Args:
        promised: encoding that the robot file names; a grey picture is refused where that has colours.

    Raises:
        ObservationError: the bytes are no whole JPEG or PNG of 8 bits, or grey where colour was promised.
    """
    data = bytes(message.data)
    try:
        pixels = _jpeg(data) if data.startswith(b"\xff\xd8") else _png(data)
    except Exception as error:  # whatever a decoder stumbles over, the picture is what is wrong
        cause = " ".join(str(error).split())[:120]
        raise ObservationError(
            f"{topic}: {len(data)} bytes of format '{message.format[:40]}' are no whole picture ({cause}); "
            "publish jpeg or png of 8 bits"
        ) from None
    sent = str(message.format).partition(";")[0].strip()
    if pixels.ndim == 2:
        colour = next((said for said in (promised, sent) if said.startswith(("rgb", "bgr", "yuv", "bayer"))), "")
        if colour:
            raise ObservationError(
                f"{topic}: the picture is grey, {colour} was promised; let the camera's driver publish rgb8"
            )
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    return pixels


def _jpeg(data: bytes) -> np.ndarray:
    """Return the pixels [h, w, 3], or [h, w] of a grey one.

    Raises:
        ValueError: too large, or damaged: libjpeg's warnings count, such as those for missing or foreign bytes.
    """
    height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    _fits(height, width)
    # The usual code words never make so many zero bits in a row: a packet that was lost. It decodes without a warning.
    if STANDARD in data and HOLE in data[: data.rfind(b"\xff\xd9")]:
        raise ValueError("a hole in it, a lost packet?")
    space = "GRAY" if colours == "Gray" else "RGB"
    pixels = simplejpeg.decode_jpeg(data, space, strict=True)
    return pixels[..., 0] if space == "GRAY" else pixels


def _png(data: bytes) -> np.ndarray:
    """Return the pixels [h, w, 3], or [h, w] of a grey one.

    Raises:
        ValueError: no PNG, damaged (checksums), too large, or not of 8 bits.
    """
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError("neither JPEG nor PNG by their first bytes")
    at, kind = 8, b""
    while kind != b"IEND":
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        end = at + 12 + size
        if end > len(data) or zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise ValueError("cut or damaged")
        if kind == b"IHDR":
            _fits(int.from_bytes(data[at + 12 : at + 16], "big"), int.from_bytes(data[at + 8 : at + 12], "big"))
            if data[at + 16] > 8:
                raise ValueError(f"{data[at + 16]} bits a channel, a depth picture?")
        at = end
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint8:
        raise ValueError("cannot be decoded")
    if pixels.ndim == 2:
        return pixels
    return cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB)


def _fits(height: int, width: int) -> None:
    if not 0 < height * width <= MOST_PIXELS:
        raise ValueError(f"{width}x{height}")


def message_to_rgb(message: Any, topic: str = "image", promised: str = "") -> np.ndarray:
    """Return an ``Image`` or a ``CompressedImage``, told apart by their fields, as uint8 RGB [h, w, 3].

    Args:
        promised: encoding that the robot file names.

    Raises:
        ObservationError: as :func:`to_rgb` and :func:`compressed_to_rgb` do.
    """
    if hasattr(message, "encoding"):
        return to_rgb(message, topic)
    return compressed_to_rgb(message, topic, promised)


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
