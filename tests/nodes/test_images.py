"""Image conversion against OpenCV, and what it refuses."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from udvla_ros.errors import ObservationError
from udvla_ros.nodes import images

# The strategies of encodings, sizes and paddings stand for what drivers publish.
SIZES = st.integers(1, 9)


def image(**fields) -> SimpleNamespace:
    return SimpleNamespace(
        **{"encoding": "rgb8", "height": 1, "width": 1, "step": 3, "is_bigendian": 0, "data": b"abc"} | fields
    )


def random_pixels(encoding: str, height: int, width: int, seed: int = 0) -> np.ndarray:
    kind, channels = images.ENCODINGS[encoding]
    rng = np.random.default_rng(seed)
    shape = (height, width) if channels == 1 else (height, width, channels)
    if kind is np.float32:
        return rng.normal(size=shape).astype(np.float32)
    return rng.integers(0, np.iinfo(kind).max, shape, dtype=kind, endpoint=True)


@given(st.sampled_from(sorted(images.ENCODINGS)), SIZES, SIZES, st.integers(0, 7), st.booleans(), st.booleans())
def test_round_trip_with_row_padding_and_foreign_byte_order(encoding, height, width, padding, swap, cut):
    pixels = random_pixels(encoding, height, width)
    message = images.fill_image(SimpleNamespace(), pixels, encoding)
    rows = np.frombuffer(message.data, np.uint8).reshape(height, message.step)
    if swap:
        size = pixels.dtype.itemsize
        rows = rows.reshape(height, -1, size)[..., ::-1].reshape(height, -1)
        message.is_bigendian = int(sys.byteorder == "little")
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    message.step += padding
    message.data = rows.tobytes()
    if cut and padding:  # the last row without its padding is legal
        message.data = message.data[:-padding]
    np.testing.assert_array_equal(images.to_array(message), pixels)


@pytest.mark.parametrize(
    ("encoding", "code"),
    [
        ("rgb8", None),
        ("bgr8", cv2.COLOR_BGR2RGB),
        ("rgba8", cv2.COLOR_RGBA2RGB),
        ("bgra8", cv2.COLOR_BGRA2RGB),
        ("mono8", cv2.COLOR_GRAY2RGB),
    ],
)
def test_colours_agree_with_opencv(encoding, code):
    pixels = random_pixels(encoding, 6, 5)
    expected = pixels if code is None else cv2.cvtColor(pixels, code)
    converted = images.to_rgb(images.fill_image(SimpleNamespace(), pixels, encoding))
    np.testing.assert_array_equal(converted, expected)
    assert converted.flags.c_contiguous and converted.dtype == np.uint8


def test_agrees_with_cv_bridge():
    bridge = pytest.importorskip("cv_bridge").CvBridge()
    for encoding in images.ENCODINGS:
        message = bridge.cv2_to_imgmsg(random_pixels(encoding, 6, 5), encoding)
        np.testing.assert_array_equal(images.to_array(message), bridge.imgmsg_to_cv2(message))


@pytest.mark.parametrize("encoding", sorted(images.ENCODINGS))
def test_agrees_with_rosbags_image(encoding):
    other = pytest.importorskip("rosbags.image")
    stores = pytest.importorskip("rosbags.typesys")
    types = stores.get_typestore(stores.Stores.ROS2_JAZZY).types
    pixels = random_pixels(encoding, 6, 5)
    filled = images.fill_image(SimpleNamespace(), pixels, encoding)
    stamp = types["builtin_interfaces/msg/Time"](sec=0, nanosec=0)
    message = types["sensor_msgs/msg/Image"](
        header=types["std_msgs/msg/Header"](stamp=stamp, frame_id=""),
        **{name: getattr(filled, name) for name in ("height", "width", "encoding", "is_bigendian", "step")},
        data=np.frombuffer(filled.data, np.uint8),
    )
    np.testing.assert_array_equal(images.to_array(message), other.message_to_cvimage(message))


def test_jpeg_round_trip_keeps_colours():
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:, :12], pixels[:, 12:] = (250, 10, 10), (10, 10, 250)
    message = images.fill_compressed(SimpleNamespace(), pixels, quality=95)
    decoded = images.compressed_to_rgb(message)
    assert decoded.shape == pixels.shape
    assert np.abs(decoded[:, [2, 20]].astype(int) - pixels[:, [2, 20]]).max() < 12


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (image(encoding="bayer_rggb8"), "front/image_raw: encoding 'bayer_rggb8' is not supported; publish one of"),
        (image(encoding=""), "encoding '' is not supported"),
        (image(data=b"ab"), "2 bytes of data where 3 are needed"),
        (image(width=2), "needs rows of 6 bytes, the header says 3"),
        (image(height=0), "1x0"),
        (image(encoding="16UC1", step=2, data=b"ab"), "'16UC1' is not a colour image"),
    ],
)
def test_refusals_name_the_topic_and_the_mend(message, said):
    with pytest.raises(ObservationError) as error:
        images.to_rgb(message, "front/image_raw")
    assert said in str(error.value) and "\n" not in str(error.value)


def test_refuses_a_broken_jpeg():
    for data in (b"", b"not a picture"):
        with pytest.raises(ObservationError, match=r"wrist: .* are no whole picture"):
            images.compressed_to_rgb(SimpleNamespace(format="jpeg", data=data), "wrist")


def test_refuses_to_fill_with_the_wrong_kind_of_pixels():
    for pixels, encoding in [
        (np.zeros((2, 2, 3), np.float32), "rgb8"),
        (np.zeros((2, 2, 4), np.uint8), "rgb8"),
        (np.zeros((2, 2), np.uint8), "16UC1"),
        (np.zeros((2, 2, 3), np.uint8), "yuv422"),
    ]:
        with pytest.raises(ObservationError, match=encoding):
            images.fill_image(SimpleNamespace(), pixels, encoding)
