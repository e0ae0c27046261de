"""Bags that others wrote, or stored otherwise: read message for message, or listed with their reason and their mend."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard
from mcap.writer import CompressionType, IndexType, Writer
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as RosbagsWriter
from synthetic_bag import BEGIN, LABELS, STORE, Recording, episode, finished, qos

from udvla_ros.cli.main import main
from udvla_ros.rollouts.bags.check import check
from udvla_ros.rollouts.bags.reader import Bag
from udvla_ros.rollouts.bags.repair import write_metadata


def when(time: float) -> int:
    return round((time - BEGIN) * 1e9) + int(BEGIN) * 1_000_000_000


def messages_of(recording):
    """Return (topic, ns, CDR) of a recording's messages in their order."""
    rows = [(topic, when(t), bytes(STORE.serialize_cdr(m, kind))) for t, topic, kind, m in recording.messages]
    return sorted(rows, key=lambda row: row[1])


def write(folder, recording, parts=1, names=None, **options):
    """Write MCAP files with the options of another writer, and ``metadata.yaml``."""
    folder.mkdir(parents=True)
    size = -(-len(recording.messages) // parts)
    for part in range(parts):
        with (folder / (names[part] if names else f"x_{part}.mcap")).open("wb") as handle:
            writer, channels, schemas = Writer(handle, **options), {}, {}
            writer.start(profile="ros2")
            writer.add_metadata("udvla_ros", recording.labels)
            for time, topic, kind, message in recording.messages[part * size : (part + 1) * size]:
                if kind not in schemas:
                    text = STORE.generate_msgdef(kind, ros_version=2)[0].encode()
                    schemas[kind] = writer.register_schema(kind, "ros2msg", text)
                if topic not in channels:
                    about = {"offered_qos_profiles": qos()}
                    channels[topic] = writer.register_channel(topic, "cdr", schemas[kind], about)
                data = bytes(STORE.serialize_cdr(message, kind))
                writer.add_message(channels[topic], when(time), data, when(time))
            writer.finish()
    write_metadata(folder)
    return folder


STORED = {
    "split": {"parts": 3},
    "eleven files, numbered": {"parts": 11},
    "split, names against time": {"parts": 3, "names": ["c.mcap", "b.mcap", "a.mcap"]},
    "zstd": {"compression": CompressionType.ZSTD},
    "unchunked": {"use_chunking": False},
    "unchunked, no index": {"use_chunking": False, "index_types": IndexType.NONE},
    "no repeated channels": {"repeat_channels": False, "repeat_schemas": False},
    "no statistics": {"use_statistics": False},
    "no summary": {
        "use_statistics": False, "repeat_channels": False, "repeat_schemas": False, "use_summary_offsets": False,
        "index_types": IndexType.NONE,
    },
}  # fmt: skip


@pytest.mark.parametrize("options", STORED.values(), ids=STORED)
def test_every_message_of_a_bag_stored_otherwise_is_read(tmp_path, options):
    recording = Recording().fill()
    folder = write(tmp_path / "bag", recording, **options)
    with Bag(folder) as bag:
        assert [(raw.topic, raw.received, raw.data) for raw in bag.raw()] == messages_of(recording)
        assert bag.labels["instruction"] == "touch the red cube" and bag.count == len(recording.messages)
    assert check(folder).good


def test_every_message_of_a_bag_of_rosbags_is_read(tmp_path):
    recording = Recording().fill()
    with RosbagsWriter(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {}
        for time, topic, kind, message in recording.messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=STORE)
            writer.write(connections[topic], when(time), bytes(STORE.serialize_cdr(message, kind)))
    with Bag(tmp_path / "bag") as bag:
        assert [(raw.topic, raw.received, raw.data) for raw in bag.raw()] == messages_of(recording)


def odd_ones(home, good):
    """Make one of each, and return a word of each one's reason."""
    (home / "link").mkdir()
    (home / "link/x_0.mcap").symlink_to("/nowhere/x_0.mcap")
    shutil.copytree(good, home / "latin")
    (home / "latin/metadata.yaml").write_bytes(b"rosbag2_bagfile_information: {custom_data: {note: '\xe9'}}\n")
    (home / "sqlite").mkdir()
    (home / "sqlite/x_0.db3").write_bytes(b"SQLite format 3\0" + bytes(100))
    (home / "file").mkdir()
    (home / "file/x_0.mcap.zstd").write_bytes(zstandard.compress((good / "good_0.mcap").read_bytes()))
    shutil.copytree(good, home / "message")
    told = (home / "message/metadata.yaml").read_text().replace("compression_mode: ''", "compression_mode: MESSAGE")
    (home / "message/metadata.yaml").write_text(told)
    (home / "empty").mkdir()
    (home / "empty/x_0.mcap").write_bytes(b"")
    return {
        "link": "links to /nowhere/x_0.mcap", "latin": "metadata.yaml", "sqlite": "sqlite3: ros2 bag convert",
        "file": "(file, zstd): ros2 bag convert", "message": "(message, zstd): ros2 bag convert", "empty": "no end",
    }  # fmt: skip


def test_each_odd_one_is_told_of_and_the_others_go_on(tmp_path, capsys):
    pytest.importorskip("pyarrow")
    home = tmp_path / "bags"
    home.mkdir()
    good = episode(home / "good")
    shutil.copytree(good, home / "run.mcap")  # ros2 bag record -o run.mcap
    reasons = odd_ones(home, good)
    for verb, code in (("list", 0), ("check", 1), ("repair", 1)):
        assert main(["bag", verb, str(home)]) == code
        said = capsys.readouterr().out
        assert "Traceback" not in said and str(good) in said
        if verb == "list":
            for name, reason in reasons.items():
                [line] = [line for line in said.splitlines() if line.endswith(f"/{name}")]
                assert reason in line, name
    assert main(["bag", "export", "--to", "lerobot", "--out", str(tmp_path / "out"), str(home)]) == 1
    said = capsys.readouterr().out
    assert "latin" not in [line for line in said.splitlines() if "left out" in line], "repair has mended it"
    for name in ("link", "sqlite", "file", "message"):
        assert any(f"left out {home / name}: " in line and reasons[name] in line for line in said.splitlines()), name


def odd(folder, kind):
    """Spoil an episode in one of five ways; return a word of the reason."""
    [file] = folder.glob("*.mcap")
    whole = file.read_bytes()
    file.unlink()
    (folder / "metadata.yaml").unlink()
    if kind == 0:
        file.write_bytes(whole[: len(whole) // 2])
        return "repair"
    if kind == 1:
        file.symlink_to("/nowhere/x_0.mcap")
        return "links to /nowhere"
    if kind == 2:
        file.with_suffix(".db3").write_bytes(b"SQLite format 3\0" + bytes(100))
        return "sqlite3: ros2 bag convert"
    if kind == 3:
        file.with_suffix(".mcap.zstd").write_bytes(zstandard.compress(whole))
        return "(file, zstd): ros2 bag convert"
    finished(Recording(duration=3.0, labels=LABELS | {"instruction": ""}).fill(), folder)
    return "no instruction"


# A process knows its own peak; what its parent hears of it includes the parent's memory before the exec.
EXPORT = """
import json, sys, time
from udvla_ros.cli.main import main
code = main(sys.argv[1:])
[peak] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(json.dumps({"peak": int(peak) / 1024, "cpu": time.process_time()}))
sys.exit(code)
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_export_of_many_with_odd_ones_needs_no_more_memory_than_of_few(tmp_path):
    """One in 25 is odd, and left out with its reason; on 500 with UDVLA_BAGS=500 and ``-s``."""
    pytest.importorskip("pyarrow")
    count, peaks = int(os.environ.get("UDVLA_BAGS", "50")), []
    good = finished(Recording(duration=3.0).fill(), tmp_path / "good")
    for size in (count // 2, count):
        home, reasons = tmp_path / f"bags{size}", {}
        for k in range(size):
            shutil.copytree(good, home / f"{k:04}")
            if k % 25 == 3:
                reasons[str(home / f"{k:04}")] = odd(home / f"{k:04}", k // 25 % 5)
        words = ["bag", "export", "--to", "lerobot", "--json", f"{home}.json", "--out", tmp_path / f"out{size}", home]
        done = subprocess.run([sys.executable, "-c", EXPORT, *words], stdout=subprocess.PIPE, text=True, check=False)
        told, used = json.loads(Path(f"{home}.json").read_text()), json.loads(done.stdout.splitlines()[-1])
        assert done.returncode == 1 and len(told["taken"]) == size - len(reasons)
        assert told["left_out"].keys() == reasons.keys()
        assert all(word in told["left_out"][folder] for folder, word in reasons.items())
        peaks.append(used["peak"])
    print(f"{count} bags: {len(told['taken'])} episodes, {len(reasons)} reasons, {used['cpu']:.0f} s CPU, "
          f"peak {peaks[1]:.0f} MB; of half as many {peaks[0]:.0f} MB")  # fmt: skip
    assert peaks[1] < 1.03 * peaks[0] + 10
