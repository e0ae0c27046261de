"""A bag on the disk: what two independent readers find in it, and what a full or slow disk does to it."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
import yaml
from bag_readers import both
from mcap.reader import make_reader
from recorded import image, joints, sample, source, string
from rosbags.rosbag2 import Reader

from udvla_ros.rollouts.bags import metadata, schemas
from udvla_ros.rollouts.bags.reader import Bag, what_is_broken
from udvla_ros.rollouts.bags.recording import Recording
from udvla_ros.rollouts.bags.repair import repair
from udvla_ros.rollouts.bags.writer import RESERVED, EpisodeWriter, RecordingError, relabel

CAMERA = source("/front/image_raw", "sensor_msgs/msg/Image", camera=True)
JOINTS = source("/joint_states", "sensor_msgs/msg/JointState")
MODE = source("/arbiter/mode", latched=True)
SILENT = source("/teleop/joint_trajectory", "trajectory_msgs/msg/JointTrajectory")
NOISE = image(np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8))


def filled(folder: Path, count: int = 60, **options) -> EpisodeWriter:
    """Return a writer that got so many joint states, a tenth as many images, and two modes."""
    writer = EpisodeWriter(folder, {"instruction": "touch the red cube"}, **options)
    for declared in (CAMERA, JOINTS, MODE, SILENT):
        writer.declare(declared)
    writer.write(sample(MODE, 0, string("HOLD")))
    writer.write(sample(MODE, 5, string("POLICY")))
    for k in range(count):
        writer.write(sample(JOINTS, k, joints(0.01 * k)))
        if k % 10 == 0:
            writer.write(sample(CAMERA, k, NOISE))
    return writer


def test_two_readers_find_every_message_in_order_with_type_hash_and_qos(tmp_path):
    filled(tmp_path / "bag").close({"outcome": "success"})
    found = both(tmp_path / "bag")
    assert [data for _, data in found["/joint_states"]] == [joints(0.01 * k) for k in range(60)]
    assert [data for _, data in found["/arbiter/mode"]] == [string("HOLD"), string("POLICY")]
    assert [data for _, data in found["/front/image_raw"]] == [NOISE] * 6
    for messages in found.values():
        assert [t for t, _ in messages] == sorted(t for t, _ in messages)
    with Reader(tmp_path / "bag") as reader:
        told = {c.topic: c for c in reader.connections}
        assert told.keys() == {s.name for s in (CAMERA, JOINTS, MODE, SILENT)}
        for known in (CAMERA, JOINTS, MODE, SILENT):
            assert told[known.name].msgtype == known.type
            assert told[known.name].digest == known.type_hash == schemas.type_hash(known.type)
        assert told["/front/image_raw"].ext.offered_qos_profiles[0].reliability.name == "BEST_EFFORT"
        assert told["/arbiter/mode"].ext.offered_qos_profiles[0].durability.name == "TRANSIENT_LOCAL"
        assert reader.ros_distro == "jazzy"
    assert metadata.read(tmp_path / "bag").custom == {"outcome": "success"}
    with next((tmp_path / "bag").glob("*.mcap")).open("rb") as handle:
        summary = make_reader(handle).get_summary()
        channels = {c.topic: c for c in summary.channels.values()}
        assert channels["/joint_states"].metadata == {
            "offered_qos_profiles": JOINTS.qos, "topic_type_hash": JOINTS.type_hash
        }
        assert {s.encoding for s in summary.schemas.values()} == {"ros2msg"}
        assert {i.compression for i in summary.chunk_indexes} == {"", "lz4"}


def test_metadata_yaml_has_what_rosbag2_of_jazzy_asks_for(tmp_path):
    filled(tmp_path / "bag").close({})
    told = yaml.safe_load((tmp_path / "bag" / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert told["version"] == 9 and told["storage_identifier"] == "mcap"
    assert told["relative_file_paths"] == ["bag_0.mcap"] == [file["path"] for file in told["files"]]
    assert told["message_count"] == 68 == told["files"][0]["message_count"]
    assert told["duration"]["nanoseconds"] == 590_000_000
    for topic in told["topics_with_message_count"]:
        assert set(topic["topic_metadata"]) == {
            "name", "type", "serialization_format", "offered_qos_profiles", "type_description_hash",
        }  # fmt: skip
        (profile,) = topic["topic_metadata"]["offered_qos_profiles"]
        assert profile["history"] == "unknown" and profile["lifespan"] == {"sec": 9223372036, "nsec": 854775807}


def test_an_unfinished_bag_is_seen_as_such_and_repaired_up_to_the_last_flush(tmp_path):
    writer = filled(tmp_path / "bag")
    writer.flush()
    writer.write(sample(JOINTS, 60, joints(0.6)))
    assert "no end" in what_is_broken(tmp_path / "bag")
    repair(tmp_path / "bag")
    assert len(both(tmp_path / "bag")["/joint_states"]) == 60
    with Bag(tmp_path / "bag") as bag:
        assert bag.labels["instruction"] == "touch the red cube" and bag.labels["outcome"] == "interrupted"


def test_labels_of_the_end_win_and_a_person_may_label_later(tmp_path):
    filled(tmp_path / "bag").close({"instruction": "touch the blue cube", "outcome": "unknown"})
    relabel(tmp_path / "bag", {"outcome": "failure"})
    custom = metadata.read(tmp_path / "bag").custom
    assert custom == {"instruction": "touch the blue cube", "outcome": "failure"}
    assert len(both(tmp_path / "bag")["/joint_states"]) == 60


def test_one_channel_per_topic_whatever_its_publishers_become(tmp_path):
    writer = filled(tmp_path / "bag")
    changed = source("/joint_states", "sensor_msgs/msg/JointState", latched=True)
    writer.write(sample(changed, 60, joints(0.6)))
    writer.close({})
    assert len(both(tmp_path / "bag")["/joint_states"]) == 61


def test_a_type_that_is_not_installed_is_recorded_without_a_definition(tmp_path):
    writer = EpisodeWriter(tmp_path / "bag", {})
    writer.write(sample(source("/odd", "odd_msgs/msg/Thing"), 0, b"\0\1\0\0\7"))
    writer.close({})
    with next((tmp_path / "bag").glob("*.mcap")).open("rb") as handle:
        ((schema, _, message),) = make_reader(handle).iter_messages()
    assert (schema.name, schema.encoding, message.data) == ("odd_msgs/msg/Thing", "", b"\0\1\0\0\7")


def test_discard_leaves_nothing_and_an_existing_folder_is_left_alone(tmp_path):
    filled(tmp_path / "bag").discard()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "bag").mkdir()
    with pytest.raises(RecordingError, match="record_dir"):
        EpisodeWriter(tmp_path / "bag", {})


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 16 MB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(mount)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


class Told:
    """Labels of the end, and what was dropped."""

    def __init__(self) -> None:
        self.dropped: dict[str, int] = {}

    def __call__(self, dropped) -> dict[str, str]:
        self.dropped = dict(dropped)
        return {"outcome": "unknown", "dropped": json.dumps(self.dropped)}


@pytest.mark.parametrize("min_free", [0, 6 << 20], ids=["really full", "stopped before"])
def test_a_full_disk_ends_the_recording_with_an_error_and_a_readable_bag(small_disk, min_free):
    told = Told()
    recording = Recording(EpisodeWriter(small_disk / "bag", {}), 64 << 20, told, min_free=min_free)
    recording.start()
    put, k = 0, 0
    while not recording.done.wait(0.02):
        assert k < 4000, "the disk of 16 MB never got full"
        recording.put([sample(JOINTS, k, joints(0.01 * k)), sample(CAMERA, k, NOISE)])
        put, k = put + 2, k + 1
    assert "free some space" in recording.error
    found = both(small_disk / "bag")
    read = sum(map(len, found.values()))
    assert read == recording.count and read > 10
    assert read + recording.dropped.total() == put  # every message is either there or counted
    states = [data for _, data in found["/joint_states"]]
    assert states == [joints(0.01 * k) for k in range(len(states))]
    assert not what_is_broken(small_disk / "bag") and not (small_disk / "bag" / RESERVED).exists()


def test_a_disk_without_room_for_the_reserve_is_refused_at_the_start(small_disk):
    (small_disk / "ballast").write_bytes(bytes(13 << 20))
    with pytest.raises(RecordingError, match="free some space"):
        EpisodeWriter(small_disk / "bag", {})
    assert [path.name for path in small_disk.iterdir()] == ["ballast"]


class SlowDisk(EpisodeWriter):
    """A stand-in for a disk that takes its time: each image waits until the test lets it through."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.gate = threading.Event()

    def write(self, written) -> None:
        if written.source.bulky:
            assert self.gate.wait(30.0)
        super().write(written)


def test_a_slow_disk_costs_images_first_blocks_nobody_and_every_drop_is_counted(tmp_path):
    disk, told = SlowDisk(tmp_path / "bag", {}), Told()
    recording = Recording(disk, 8 << 20, told)
    recording.start()
    at_once = 0
    for k in range(100):  # 92 MB; the writing thread is stuck with the first image
        at_once += recording.put([sample(JOINTS, k, joints(0.01 * k)), sample(CAMERA, k, NOISE)]).total()
    assert at_once > 80 and recording.dropped == {"/front/image_raw": at_once}
    disk.gate.set()
    recording.end()
    assert recording.done.wait(30.0) and not recording.error
    found = both(tmp_path / "bag")
    assert len(found["/joint_states"]) == 100
    assert len(found["/front/image_raw"]) == 100 - at_once
    assert told.dropped == {"/front/image_raw": at_once}


def test_a_bug_in_the_writer_is_told_and_the_bag_is_closed(tmp_path):
    def convert(s):
        if s.sequence > 50:
            raise KeyError("bug")
        return s

    recording = Recording(EpisodeWriter(tmp_path / "bag", {}), 8 << 20, Told(), convert)
    recording.start(sample(JOINTS, k, joints(0.0)) for k in range(100))
    assert recording.done.wait(30.0)
    assert "KeyError" in recording.error
    assert len(both(tmp_path / "bag")["/joint_states"]) == 50
