"""What the demo's onlooker notes becomes the right pictures and numbers."""

from __future__ import annotations

import numpy as np
import pytest

from udvla_ros.evaluation.cases import demo_cases
from udvla_ros.evaluation.recording import EpisodeRecord, Film, comparable, demo_report, film_frames, sheet_rows

BEGAN = 1000.0


def picture(time: float, camera: str) -> np.ndarray:
    """A picture whose colour tells its time."""
    shade = round((time - BEGAN) * 60)
    size = (48, 64) if camera == "front" else (32, 32)
    return np.full((*size, 3), shade, np.uint8)


@pytest.fixture
def record():
    made = EpisodeRecord(demo_cases(1, 0)[0], Film(["front", "wrist"]), began=BEGAN)
    for k in range(31):
        for camera in ("front", "wrist"):
            made.film.add(camera, BEGAN + k / 12, picture(BEGAN + k / 12, camera))
    for k in range(5):
        stamp = BEGAN + 0.25 + 0.5 * k
        made.chunks.append(
            {
                "stamp": stamp,
                "horizon": 0.8,
                "dt": 0.1,
                "cold_start_ms": 900.0,
                "bundle": "toy",
                "bundle_hash": "ab",
                "timings_ms": {"total": 100.0 + k},
            }
        )
        for camera in ("front", "wrist"):
            made.predict(camera, stamp + 0.8, stamp + 0.1, np.full((32, 32, 3), 200 + k, np.uint8))
    made.success, made.reason, made.steps, made.seconds, made.ended = True, "done", 17, 1.7, BEGAN + 2.0
    return made


def test_seen_predicted_and_came_belong_to_their_times(record):
    rows = sheet_rows([record])
    assert len(rows) == 2
    first = rows[0]
    stamp = comparable(record)[1][0]
    assert first.saw["front"][0, 0, 0] == pytest.approx((stamp - BEGAN) * 60, abs=60 / 24 + 1)
    assert first.came["wrist"][0, 0, 0] == pytest.approx((stamp + 0.8 - BEGAN) * 60, abs=60 / 24 + 1)
    assert first.predicted["front"][0, 0, 0] == 201 and set(first.predicted) == {"front", "wrist"}
    assert record.case.instruction in first.text


def test_a_prediction_of_a_time_never_seen_is_left_out(record):
    stamps = [stamp for stamp, _ in comparable(record)]
    assert stamps == [BEGAN + 0.25, BEGAN + 0.75, BEGAN + 1.25, BEGAN + 1.75]


def test_pictures_too_far_in_time_are_none(record):
    assert record.film.at(BEGAN + 5.0) == {}
    assert set(record.film.at(BEGAN + 1.0)) == {"front", "wrist"}


def test_many_episodes_get_fewer_rows_each(record):
    assert len(sheet_rows([record] * 20)) == 20
    assert len(sheet_rows([record] * 40)) == 24


def test_the_film_shows_a_prediction_only_once_it_was_made(record):
    frames = list(film_frames([record], scale=1))
    assert len(frames) == 31 and len({f.shape for f in frames}) == 1
    height = frames[0].shape[0]
    below = slice(height - 26 - 40, height - 26 - 20)
    assert (frames[0][below, 10] == 225).all()
    assert (frames[8][below, 10] == 200).all()


def test_the_report_counts_and_names(record):
    report = demo_report([record, record], 0, "udvla demo")
    assert report["success_rate"] == 1.0 and report["chunks"] == 10 and report["control_hz"] == 10.0
    assert report["limit_violations"] == 0 and report["cold_start_ms"] == 900.0
    assert report["latency_ms"]["total"] == {"p50": 102.0, "p95": 104.0, "p99": 104.0}
    assert report["bundle"] == {"name": "toy", "hash": "ab"}
    assert set(report["episodes"][0]) >= {"seed", "instruction", "task", "success", "reason", "steps", "seconds"}
    assert report["tasks"]["touch"]["successes"] == 2


def test_a_graph_without_chunks_still_reports():
    empty = EpisodeRecord(demo_cases(1, 0)[0], Film(["front"]), reason="no chunk came")
    report = demo_report([empty], None, "udvla demo")
    assert report["success_rate"] == 0.0 and report["latency_ms"] == {} and report["control_hz"] is None
    assert sheet_rows([empty]) == [] and list(film_frames([empty])) == []


def test_a_demo_goes_over_all_instructions():
    cases = demo_cases(6, 0)
    assert len({(c.task.kind, c.task.colour) for c in cases}) == 6
    assert len({c.seed for c in cases}) == 6 and min(c.seed for c in cases) >= 1_000_000
