"""A recording that was cut off anywhere is made whole again: both readers read a beginning of what was written."""

from __future__ import annotations

import shutil

import pytest
import synthetic_bag as synthetic
from bag_readers import both, by_mcap, by_rosbags
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mcap.writer import CompressionType

from udvla_ros.rollouts.bags import metadata
from udvla_ros.rollouts.bags.reader import Bag
from udvla_ros.rollouts.bags.repair import repair
from udvla_ros.rollouts.bags.topic import BagError

SMALL = {"duration": 1.6, "camera_hz": 6.0, "joints_hz": 20.0}


def small():
    """A recording that is quick to read again and again, with an image in half of its chunks."""
    return synthetic.Recording(**SMALL).fill().drop(lambda t, topic, m: topic == "/arbiter/command" and t % 0.05 > 0.01)


MAKERS = {
    "lz4": lambda folder: synthetic.finished(small(), folder, chunk_size=8 * 1024),
    "plain": lambda folder: synthetic.finished(
        small(), folder, chunk_size=8 * 1024, compression=CompressionType.NONE
    ),
    "recorder": lambda folder: synthetic.recorded(small(), folder),
}


@pytest.fixture(scope="module", params=list(MAKERS))
def whole(request, tmp_path_factory):
    folder = MAKERS[request.param](tmp_path_factory.mktemp(request.param) / "episode")
    return next(folder.glob("*.mcap")), both(folder)


def cut(whole, folder, size):
    """Lay out what a kill leaves: the beginning of the file, and no metadata.yaml."""
    folder.mkdir(parents=True)
    path = folder / "episode_0.mcap"
    path.write_bytes(whole.read_bytes()[:size])
    return path


def assert_beginning(read, original):
    for topic, messages in read.items():
        assert messages == original[topic][: len(messages)], topic


@given(share=st.floats(0.0, 1.0))
@example(share=0.0)
@example(share=1.0)
@settings(max_examples=20)
def test_cut_anywhere_it_becomes_a_beginning_of_what_was_written(whole, tmp_path_factory, share):
    path, original = whole
    folder = tmp_path_factory.mktemp("cut") / "episode"
    size = round(share * path.stat().st_size)
    left = cut(path, folder, size)
    before = left.read_bytes()
    report = repair(folder)
    read = by_mcap(left)
    assert {topic: messages for topic, messages in by_rosbags(folder).items() if messages} == read
    assert_beginning(read, original)
    assert report.messages == {topic: len(read.get(topic, ())) for topic in report.messages}
    if report.kept:
        assert (folder / report.kept[0]).read_bytes() == before
    else:
        assert size == path.stat().st_size
    assert report.bytes_lost <= size
    again = repair(folder)
    assert not again.changed and again.messages == report.messages
    with Bag(folder) as bag:
        assert bag.count == sum(map(len, read.values()))
    shutil.rmtree(folder)


@pytest.mark.parametrize("maker", ["recorder", "plain"])
def test_at_most_a_second_is_lost(tmp_path, maker):
    folder = MAKERS[maker](tmp_path / "whole")
    path, original = next(folder.glob("*.mcap")), both(folder)
    last = max(time for messages in original.values() for time, _ in messages)
    # Cut in the data just before the summary: all that a kill at the very end leaves.
    content = path.read_bytes()
    for back in (600, 3000, 9000):
        left = cut(path, tmp_path / f"cut{back}", len(content) - back)
        repair(left.parent)
        read = by_mcap(left)
        assert last - max(t for messages in read.values() for t, _ in messages) < 1.1e9
        assert_beginning(read, original)


def test_everything_but_the_index_there_nothing_is_lost(tmp_path):
    folder = synthetic.finished(small(), tmp_path / "episode")
    path, original = next(folder.glob("*.mcap")), both(folder)
    path.write_bytes(path.read_bytes()[:-8])
    report = repair(folder)
    assert both(folder) == original
    assert report.chunks_lost == 0 and any("all messages are there" in note for note in report.notes)


def test_a_damaged_chunk_is_left_out_and_the_rest_is_kept(tmp_path):
    folder = synthetic.finished(small(), tmp_path / "episode", chunk_size=8 * 1024)
    path, original = next(folder.glob("*.mcap")), both(folder)
    content = bytearray(path.read_bytes())
    middle = content.index(b"lz4", len(content) // 2) + 200
    content[middle : middle + 64] = bytes(64)
    path.write_bytes(content)
    report = repair(folder)
    assert report.chunks_lost == 1 and report.bytes_lost > 0
    assert any("damaged" in note for note in report.notes)
    read, count = both(folder), sum(map(len, original.values()))
    assert 0.5 * count < sum(map(len, read.values())) < count
    for topic, messages in read.items():
        assert set(messages) <= set(original[topic])
        assert messages == sorted(messages)


def test_a_power_cut_leaves_zeros_and_they_are_no_messages(tmp_path):
    folder = synthetic.recorded(small(), tmp_path / "episode")
    path, original = next(folder.glob("*.mcap")), both(folder)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3] + bytes(len(content) // 3))
    repair(folder)
    assert_beginning(both(folder), original)


def test_missing_metadata_is_rebuilt_and_the_file_is_left_alone(tmp_path):
    folder = synthetic.recorded(small(), tmp_path / "episode")
    path = next(folder.glob("*.mcap"))
    before, told = path.read_bytes(), metadata.read(folder)
    (folder / "metadata.yaml").unlink()
    report = repair(folder)
    assert report.changed == ["metadata.yaml"] and not report.kept and path.read_bytes() == before
    again = metadata.read(folder)
    assert (again.start, again.duration, again.count) == (told.start, told.duration, told.count)
    assert again.files == told.files
    assert again.custom["outcome"] == "success"
    rows = [
        {(t.name, t.type, t.type_hash, t.count, str(metadata.profiles(t.qos))) for t in found.topics}
        for found in (told, again)
    ]
    assert rows[0] == rows[1]


def test_labels_that_nobody_wrote_are_taken_from_the_messages(tmp_path):
    labels = {"robot": "ur5e_sim", "instruction": "touch the red cube"}
    recording = synthetic.Recording(labels=labels).fill()
    for k in range(20):  # so that the end is cut and not what matters here
        late = recording.duration + 0.01 * k
        recording.add(late, "arbiter/mode_reason", "std_msgs/msg/String", synthetic.text("x" * 500))
    recording.labels = {"robot": "ur5e_sim"}
    folder = synthetic.recorded(recording, tmp_path / "episode")
    path = next(folder.glob("*.mcap"))
    path.write_bytes(path.read_bytes()[: -(path.stat().st_size // 20)])
    (folder / "metadata.yaml").unlink()
    (folder / ".reserve").write_bytes(b"0")
    repair(folder)
    assert not (folder / ".reserve").exists()
    with Bag(folder) as bag:
        assert bag.labels["instruction"] == "touch the red cube"
        assert (bag.labels["bundle"], bag.labels["bundle_hash"]) == ("toy", "5c417")
        assert bag.labels["outcome"] == "interrupted"


def test_a_label_given_before_the_damage_is_kept(tmp_path):
    folder = synthetic.recorded(small(), tmp_path / "episode")
    path = next(folder.glob("*.mcap"))
    path.write_bytes(path.read_bytes()[:-100])
    repair(folder)
    with Bag(folder) as bag:
        assert bag.labels["outcome"] == "success"


def test_nothing_to_repair_is_an_error(tmp_path):
    with pytest.raises(BagError, match=r"no \*\.mcap"):
        repair(tmp_path)
