"""The MCAP file: readable by others, up to the last flush, whatever comes."""

from __future__ import annotations

import errno
import os
import resource
import signal

import numpy as np
import pytest
from bag_readers import by_mcap
from mcap.reader import make_reader
from mcap.stream_reader import StreamReader
from recorded import image, string

from udvla_ros.rollouts.bags import schemas
from udvla_ros.rollouts.bags.mcap_file import CHUNK_MESSAGES, McapFile

KIND, IMAGE = "std_msgs/msg/String", "sensor_msgs/msg/Image"


def begin(path, **options) -> tuple[McapFile, int, int]:
    file = McapFile(path, "test", **options)
    text = file.add_channel("/text", file.add_schema(KIND, "ros2msg", schemas.definition(KIND).encode()), {"a": "b"})
    view = file.add_channel("/view", file.add_schema(IMAGE, "ros2msg", schemas.definition(IMAGE).encode()), {})
    return file, text, view


@pytest.mark.parametrize("compression", ["lz4", "none"])
def test_every_message_comes_back_with_times_sequence_and_checksums(tmp_path, compression):
    file, text, view = begin(tmp_path / "a.mcap", compression=compression)
    picture = image(np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8))
    wanted: dict[str, list] = {"/text": [], "/view": []}
    for k in range(40):
        file.add_message(view, k, 1000 * k, 1000 * k + 1, picture, bulky=True)
        wanted["/view"].append((1000 * k, picture))
        for j in range(20):
            time = 1000 * k + 10 * j
            file.add_message(text, 20 * k + j, time, time + 3, string(f"{k} {j}"))
            wanted["/text"].append((time, string(f"{k} {j}")))
        if k % 7 == 0:
            file.flush()
    file.add_metadata("labels", {"outcome": "success"})
    file.finish()
    assert by_mcap(file.path) == wanted
    with file.path.open("rb") as handle:
        reader = make_reader(handle, validate_crcs=True)
        assert reader.get_header().profile == "ros2"
        statistics = reader.get_summary().statistics
        assert statistics.message_count == 840 and statistics.channel_message_counts == {text: 800, view: 40}
        assert (statistics.message_start_time, statistics.message_end_time) == (0, 39_190)
        assert [m.metadata for m in reader.iter_metadata()] == [{"outcome": "success"}]
        first = next(reader.iter_messages(topics=["/text"], starting_at=5010))[2]
        assert (first.log_time, first.publish_time, first.sequence) == (5010, 5013, 101)
    with file.path.open("rb") as handle:  # and a reader that knows no index
        kinds = [type(record).__name__ for record in StreamReader(handle, validate_crcs=True).records]
    assert kinds.count("Message") == 840
    assert file.size == file.path.stat().st_size


def test_many_small_images_fit_the_pieces_of_one_write(tmp_path):
    file, _, view = begin(tmp_path / "a.mcap")
    small = image(np.zeros((4, 4, 3), np.uint8))
    for k in range(3 * CHUNK_MESSAGES[True]):
        file.add_message(view, k, k, k, small, bulky=True)
    file.finish()
    assert len(by_mcap(file.path)["/view"]) == 3 * CHUNK_MESSAGES[True]


def test_after_a_flush_the_file_holds_everything_so_far(tmp_path):
    file, text, view = begin(tmp_path / "a.mcap")
    for k in range(10):
        file.add_message(text, k, k, k, string(str(k)))
        file.add_message(view, k, k, k, image(np.zeros((4, 4, 3), np.uint8)), bulky=True)
    file.flush()
    file.add_message(text, 10, 10, 10, string("lost with the process"))
    from udvla_ros.rollouts.bags.salvage import Losses, records

    losses = Losses()
    found = [type(record).__name__ for record in records(file.path, losses)]
    assert found.count("Message") == 20 and found.count("Channel") == 2 and not losses.chunks


def test_a_write_that_fails_takes_nothing_back(tmp_path):
    """A limit on the size of files stands in for a full disk: it cuts a write in the middle, too."""
    file, text, _ = begin(tmp_path / "a.mcap", compression="none")
    for k in range(10):
        file.add_message(text, k, k, k, string(str(k)))
    file.flush()
    whole, limits = file.size, resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (whole + 300, limits[1]))
        for k in range(10, 30):
            file.add_message(text, k, k, k, string("x" * 100))
        with pytest.raises(OSError) as caught:
            file.flush()
        assert caught.value.errno == errno.EFBIG
        assert file.size == os.path.getsize(file.path) == whole
        assert file.lost == {text: 20}
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    file.add_message(text, 30, 30, 30, string("there is room again"))
    file.finish()
    assert [data for _, data in by_mcap(file.path)["/text"]] == [
        *(string(str(k)) for k in range(10)), string("there is room again"),
    ]  # fmt: skip


def test_an_empty_recording_is_a_file_too(tmp_path):
    file, _, _ = begin(tmp_path / "a.mcap")
    file.finish()
    assert by_mcap(file.path) == {}


def test_no_file_is_overwritten(tmp_path):
    (tmp_path / "a.mcap").write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        McapFile(tmp_path / "a.mcap", "test")
