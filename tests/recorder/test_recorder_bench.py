"""The verdict on a recorder: it fails where it should."""

from __future__ import annotations

import os

import pytest
from recorded import joints, sample, source

from udvla_ros.proving.bench.recorder_bench import Phase, cpu_seconds, draw, holes, judge, table
from udvla_ros.rollouts.bags.writer import EpisodeWriter

JOINTS = source("/joint_states", "sensor_msgs/msg/JointState")


@pytest.fixture
def bag(tmp_path):
    writer = EpisodeWriter(tmp_path / "bag", {})
    for k in range(100):
        writer.write(sample(JOINTS, k, joints(0.0)))
    writer.close({})
    return tmp_path / "bag"


def phase(hz: float = 100.0, share: float = 0.1, published: int = 100) -> Phase:
    made = Phase(seconds=10.0, commands=[round(k * 1e9 / hz) for k in range(1000)])
    made.cpu["recorder_node"] = [(float(s), share * s) for s in range(11)]
    made.published = {"/joint_states": published}
    return made


def test_cheap_harmless_and_complete_passes(bag, tmp_path):
    report = judge(phase(), phase(hz=99.0), bag, {"dropped": 0, "lost": 0, "error": ""})
    assert report["passed"] and report["recorder_cpu"] == pytest.approx(0.1)
    assert report["arbiter_change"] == pytest.approx(-0.01, abs=1e-6)
    assert "100 published, 0 missing, 0 holes" in table(report)
    assert draw(tmp_path / "a.png", phase(), report, ["recorder_node"]).stat().st_size > 1000


@pytest.mark.parametrize(
    ("recorded", "status"),
    [
        (phase(share=0.16), {}), (phase(hz=97.5), {}), (phase(published=101), {}),
        (phase(), {"dropped": 1}), (phase(), {"lost": 1}), (phase(), {"error": "No space left on device"}),
    ],
    ids=["dear", "slows the arm", "incomplete", "dropped", "lost", "error"],
)  # fmt: skip
def test_anything_else_fails(bag, recorded, status):
    report = judge(phase(), recorded, bag, status)
    assert not report["passed"] and list(report["checks"].values()).count(False) == 1
    assert "FAILED" in table(report)


def test_holes_are_counted_from_the_publishers_numbers(tmp_path):
    writer = EpisodeWriter(tmp_path / "bag", {})
    both = source("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray")
    for k in (0, 1, 2, 5, 6, 9):
        writer.write(sample(JOINTS, k, joints(0.0)))
    for k, number in enumerate((1, 1, 2, 3, 2)):  # two publishers, each with numbers of its own
        writer.write(sample(both, k, b"\0\1\0\0")._replace(sequence=number))
    writer.close({})
    assert holes(tmp_path / "bag") == {"/joint_states": 4}


def test_processor_time_is_read():
    before = cpu_seconds(os.getpid())
    while cpu_seconds(os.getpid()) < before + 0.02:
        sum(range(10_000))
