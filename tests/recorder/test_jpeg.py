"""Images recorded compressed: the same picture, header and times, decoded by the path that everything uses."""

from __future__ import annotations

import numpy as np
import pytest
from bag_readers import both
from recorded import STORE, image, sample, source

from udvla_ros.rollouts.bags.jpeg import COMPRESSED, Compressor
from udvla_ros.rollouts.bags.writer import EpisodeWriter
from udvla_ros.rollouts.images import compressed_to_rgb

CAMERA = source("/front/image_raw", "sensor_msgs/msg/Image", camera=True)
Y, X = np.mgrid[:48, :64]
PICTURE = np.stack([4 * X, 5 * Y, 2 * (X + Y)], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8"])
@pytest.mark.parametrize("frame", ["", "c", "camera", "front_camera_optical_frame"])
def test_picture_header_and_times_stay(encoding, frame):
    pixels = PICTURE if encoding == "rgb8" else PICTURE[..., ::-1]
    raw = sample(CAMERA, 3, image(pixels, encoding, stamp=12.5, frame=frame))
    made = Compressor(95)(raw)
    assert made.source.name == "/front/image_raw/compressed" and made.source.type == COMPRESSED
    assert made.source.type_hash == STORE.hash_rihs01(COMPRESSED) and made.source.qos == CAMERA.qos
    assert made[1:4] == raw[1:4]
    message = STORE.deserialize_cdr(made.data, COMPRESSED)
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (12, 500_000_000)
    assert message.header.frame_id == frame and "jpeg" in message.format
    assert np.abs(compressed_to_rgb(message).astype(int) - PICTURE).mean() < 3
    assert len(made.data) < len(raw.data) / 3


def test_depth_other_topics_and_broken_images_stay_as_they_are():
    compressor = Compressor()
    depth = sample(CAMERA, 0, image(np.zeros((48, 64), np.uint16), "16UC1"))
    predicted = sample(source("/policy_node/predicted_image", "sensor_msgs/msg/Image"), 0, image(PICTURE))
    cut = sample(CAMERA, 0, image(PICTURE)[:500])
    for untouched in (depth, predicted, cut):
        assert compressor(untouched) is untouched


def test_a_compressed_bag_is_read_by_others(tmp_path):
    writer, compressor = EpisodeWriter(tmp_path / "bag", {}), Compressor()
    for k in range(5):
        writer.write(compressor(sample(CAMERA, k, image(PICTURE))))
    writer.close({})
    assert len(both(tmp_path / "bag")["/front/image_raw/compressed"]) == 5
