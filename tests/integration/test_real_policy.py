"""``policy_node`` as it is shipped, with a bundle of random weights: what comes out means nothing, all of it runs."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from harness import environment, skip_where_time_is_not_real
from sensor_msgs.msg import Image
from std_msgs.msg import String

from udvla_ros import graph
from udvla_ros.bringup import Bringup
from udvla_ros.nodes import images, runtime


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    toy_bundle = pytest.importorskip("toy_bundle")
    return toy_bundle.saved(tmp_path_factory.mktemp("bundle") / "toy")


def policy(bundle: str, **arguments: str) -> Bringup:
    """Return a bringup of the sim graph's policy alone; simulated arm and arbiter are the session's."""
    nodes = [n for n in graph.resolve("sim", {"bundle": bundle, **arguments}) if n.name == "policy_node"]
    return Bringup([replace(n, niceness=0) for n in nodes], environment(), write=lambda line: None)


def test_images_in_chunks_and_predictions_out_within_limits(robot, probe, toy):
    skip_where_time_is_not_real()
    before = robot.violations()
    heard = probe.hear(String, "policy_node/chunk_info")
    topics = {"front": "policy_node/predicted_image", "wrist": "policy_node/predicted_image/wrist"}
    pictures = {name: probe.hear(Image, topic) for name, topic in topics.items()}
    with policy(str(toy)) as bringup:
        bringup.wait_ready(90.0)
        heard.clear()
        robot.engage()
        probe.until(lambda: len(heard) >= 4, "four chunks", 60.0)
        chunks = [json.loads(message.data) for message in heard]
        probe.until(lambda: int(robot.values("arbiter_node").get("accepted", 0)) > 0, "an accepted chunk")
        assert probe.call("arbiter_node/hold").success
        probe.until(robot.resting, "rest")
    for chunk in chunks:
        assert chunk["timings_ms"].keys() >= {"image_encode", "prefill", "denoise", "detokenise", "total"}
        assert chunk["timings_ms"]["frame_to_trajectory"] > chunk["timings_ms"]["total"] > 0
        assert chunk["bundle"] == "toy-random" and chunk["bundle_hash"] and chunk["cold_start_ms"] > 0
        assert np.shape(chunk["actions"]) == (round(chunk["horizon"] / chunk["dt"]), 7)
    assert len({chunk["seed"] for chunk in chunks}) == len(chunks)
    stamps = np.array([chunk["stamp"] for chunk in chunks])
    assert (np.diff(stamps) > 0.5 * chunks[0]["horizon"] - 0.1).all(), "the next look came before its time"
    for name, messages in pictures.items():
        stamp = runtime.to_seconds(messages[-1].header.stamp)
        assert np.abs(stamps + chunks[0]["horizon"] - stamp).min() < 1e-3 or stamp > stamps[-1]
        assert images.to_rgb(messages[-1]).ndim == 3, name
    assert robot.violations() == before
