from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from udvla_ros.cli.bench_safety import faults, shipped
from udvla_ros.cli.main import main
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.proving.bench.safety_bench import measure
from udvla_ros.proving.bench.seams import LAG, TICK, Trace, careless, followed, seam_jerk


@pytest.fixture(scope="module")
def result():
    return measure(RobotDescription.load("ur5e_sim"), messages=30, options=shipped(None, None))


def test_the_command_writes_report_and_picture_for_each_robot(tmp_path, capsys):
    arguments = ["--robot", "ur5e_sim", "panda", "--messages", "8", "--budget-ms", "1000", "--out", str(tmp_path)]
    assert main(["bench", "safety", *arguments, "--json", str(tmp_path / "also.json")]) in (0, 1)
    report = json.loads((tmp_path / "also.json").read_text())
    assert report == json.loads((tmp_path / "report.json").read_text())
    assert set(report["robots"]) == {"ur5e_sim", "panda"}
    assert report["robots"]["panda"]["offer_ms"]["p99"] > 0
    assert report["tcp_tracking"]["panda"]["worst_mm"] < 5.0
    for name in report["robots"]:
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
    said = capsys.readouterr().out
    assert "message to plan" in said and "chunk after chunk" in said and "TCP deltas" in said


def test_a_latency_without_overlap_is_refused(capsys):
    assert main(["bench", "safety", "--latency", "2.0"]) == 2
    assert "--latency" in capsys.readouterr().err


def test_seams_are_smooth_as_shipped_and_rough_without_care(result):
    seams = result.seams
    assert seams["stitched"]["ratio"] <= 1.5
    assert min(seams[way]["overall"] for way in ("chunk_after_chunk", "reanchored")) > 5 * seams["stitched"]["overall"]
    assert result.arm_seams["stitched"]["ratio"] <= 1.5


def test_each_fault_is_told(result):
    fine = replace(result, offer_ms={**result.offer_ms, "p99": 0.5})
    assert faults(fine, 1.0) == []
    assert "5.00 ms" in faults(replace(result, offer_ms={**result.offer_ms, "p99": 5.0}), 1.0)[0]
    rough = {**result.seams, "stitched": {**result.seams["stitched"], "ratio": 1.6}}
    assert "1.60 times" in faults(replace(fine, seams=rough), 1.0)[0]
    assert "limit" in faults(replace(fine, worst={**result.worst, "jerk": 1.01}), 1.0)[0]


def test_the_lagging_arm_ends_where_it_is_commanded_one_time_constant_later():
    arm = followed(np.concatenate([np.zeros((1, 1)), np.ones((60, 1))]))
    assert arm[-1, 0] == pytest.approx(1.0, abs=1e-6)
    after = arm[1 + round(LAG / TICK), 0]
    assert 0.55 < after < 0.8


def test_the_careless_ways_do_what_they_are_called():
    line = np.linspace(0.01, 0.08, 8)[:, None]

    def chunk(q):
        return q + line

    replayed = careless(chunk, np.zeros(1), 4, 0.3, 0.1, measured=False)
    anchored = careless(chunk, np.zeros(1), 4, 0.3, 0.1, measured=True)
    assert isinstance(replayed, Trace) and len(replayed.commands) == 120 and replayed.switches == [30, 60, 90, 120]
    back = np.diff(anchored.curve[:, 0])[np.array(anchored.switches[1:-1]) - 1]
    assert (back < 0).all(), "each switch drags the command back to the arm"
    assert seam_jerk(anchored.curve, anchored.switches)["ratio"] > 3
