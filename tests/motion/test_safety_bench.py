from __future__ import annotations

import json

import numpy as np

from udvla_ros.proving.bench.safety_bench import measure
from udvla_ros.proving.bench.seams import SEAM, TICK, seam_jerk


def test_the_benchmark_measures_a_short_run(ur5e):
    seen = []
    report = measure(ur5e, messages=25, latency=0.3, progress=lambda: seen.append(1)).as_dict()
    assert len(seen) == report["messages"] == 25
    assert max(report["worst"].values()) <= 1.0
    assert report["refused"] == {}
    assert report["tracking_mm"]["p50"] < 3.0
    assert report["rest_s"]["p99"] < 0.5
    assert report["seams"]["stitched"]["at_seams"] < 0.3 * report["seams"]["chunk_after_chunk"]["at_seams"]
    assert "Infinity" not in json.dumps(report) and "NaN" not in json.dumps(report)


def test_jerk_is_counted_where_it_happens():
    track = np.zeros((200, 2))
    track[100:, 0] = 0.1  # a step of a tenth of a radian
    at_step = seam_jerk(track, [100])
    assert at_step["inside"] == 0.0 and at_step["at_seams"] > 1e4
    elsewhere = seam_jerk(track, [20])
    assert elsewhere["at_seams"] == 0.0 and elsewhere["inside"] > 1e3
    assert seam_jerk(track, list(range(0, 200, round(SEAM / TICK / 2))))["ratio"] is None
