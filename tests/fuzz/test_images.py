"""Whatever a camera sends: a picture that is whole, or one line that refuses it."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
from fuzzing import damages, examples
from hypothesis import given
from hypothesis import strategies as st

from udvla_ros.errors import ObservationError
from udvla_ros.rollouts.images import message_to_rgb

RNG = np.random.default_rng(0)
PICTURE = np.clip(
    np.kron(RNG.integers(20, 230, (3, 4, 3)), np.ones((8, 8, 1))) + RNG.integers(0, 20, (24, 32, 3)), 0, 255
).astype(np.uint8)
JPEG = cv2.imencode(".jpg", PICTURE)[1].tobytes()
PNG = cv2.imencode(".png", PICTURE)[1].tobytes()


def refused(message: object) -> bool:
    try:
        pixels = message_to_rgb(message, "front", "rgb8")
    except ObservationError as error:
        assert "\n" not in str(error)
        return True
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size
    return False


@examples(4000)
@given(damage=damages())
def test_a_damaged_jpeg_is_refused_or_decoded_and_never_ends_anything(damage):
    refused(SimpleNamespace(format="jpeg", data=damage(JPEG)))


@examples(2500)
@given(damage=damages())
def test_a_damaged_png_is_refused_or_the_very_same_picture(damage):
    data = damage(PNG)
    if not refused(SimpleNamespace(format="png", data=data)):
        assert np.array_equal(message_to_rgb(SimpleNamespace(format="png", data=data)), PICTURE[..., ::-1])


@examples(1000)
@given(data=st.binary(max_size=200), head=st.sampled_from([b"", JPEG[:20], JPEG[:600], PNG[:33], b"BM", b"GIF89a"]))
def test_bytes_that_are_no_picture_are_refused(data, head):
    assert refused(SimpleNamespace(format="jpeg", data=head + data))


@examples(2500)
@given(
    encoding=st.sampled_from(["rgb8", "bgr8", "rgba8", "mono8", "16UC1", "32FC1", "yuv422_yuy2", "bayer_rggb8", ""])
    | st.text(max_size=12),
    height=st.integers(0, 2**32 - 1) | st.integers(0, 6),
    width=st.integers(0, 2**32 - 1) | st.integers(0, 6),
    step=st.integers(0, 2**32 - 1) | st.integers(0, 40),
    data=st.binary(max_size=160),
    big=st.booleans(),
)
def test_a_raw_image_whose_header_lies_is_refused(encoding, height, width, step, data, big):
    message = SimpleNamespace(
        encoding=encoding, height=height, width=width, step=step, data=data, is_bigendian=int(big)
    )
    if not refused(message):
        assert len(data) >= step * (height - 1) + width


def test_a_cut_padded_holed_deep_or_grey_picture_is_refused():
    half = len(JPEG) // 2
    holed = bytearray(JPEG)
    holed[half : half + 40] = bytes(40)
    depth = cv2.imencode(".png", RNG.integers(400, 8000, (24, 32)).astype(np.uint16))[1].tobytes()
    grey = cv2.imencode(".jpg", PICTURE[..., 0])[1].tobytes()
    for data in (JPEG[:half], JPEG[:half] + bytes(half), bytes(holed), depth, PNG[:-20], grey):
        assert refused(SimpleNamespace(format="jpeg", data=data))
    assert not refused(SimpleNamespace(format="jpeg", data=JPEG + bytes(500))), "padding behind the end is usual"
