"""What is called constant, and what is not."""

from __future__ import annotations

import mmap
import os

import cv2
import numpy as np
import pytest

from udvla_ros.proving.bench import soak, soak_plot
from udvla_ros.proving.bench.soak import MIB, Record


def memory(minutes=30.0, mib=400.0, slope=0.0, noise=1.0, start=0.0, jump=0.0):
    """Samples once a second: MiB, MiB per hour, MiB of noise, MiB that the first minutes add, a late single jump."""
    times = np.arange(0.0, 60 * minutes)
    rng = np.random.default_rng(0)
    sizes = mib + slope * times / 3600 + rng.normal(0, noise, len(times)) - start * np.exp(-times / 60)
    sizes[len(times) * 9 // 10 :] += jump
    return [(float(t), int(s * MIB)) for t, s in zip(times, sizes, strict=True)]


def record(tail=1.0, **growth):
    made = Record(memory={"policy_node": memory(**growth), "arbiter_node": memory(mib=80)})
    rng = np.random.default_rng(1)
    times = np.arange(0, 1800, 0.5)
    total = 80 + rng.normal(0, 3, len(times))
    total[rng.random(len(times)) < 0.02] *= tail
    made.chunks = [(float(t), {"total": float(v), "denoise": float(v) / 2}) for t, v in zip(times, total, strict=True)]
    made.commands.extend(np.arange(0, 60, 0.01))
    return made


def test_a_graph_that_stays_as_it_is_passes():
    verdict = soak.judge(record(), 1800.0)
    assert verdict["passed"] and verdict["memory_constant"] and verdict["latency_steady"]
    assert verdict["memory"]["policy_node"]["slope_mib_per_hour"] == pytest.approx(0, abs=1)
    assert verdict["missed_cycles"] == 0 and verdict["tick_gap_ms"]["p50"] == pytest.approx(10)
    assert verdict["drift"] == pytest.approx(1.0, abs=0.02) and verdict["chunks"] == 3600


def test_a_leak_is_found_by_its_slope():
    verdict = soak.judge(record(slope=40.0), 1800.0)
    told = verdict["memory"]["policy_node"]
    assert not verdict["passed"] and told["constant"] is False
    assert told["slope_mib_per_hour"] == pytest.approx(40, abs=2)
    assert verdict["memory"]["arbiter_node"]["constant"] is True


def test_the_one_who_watches_is_told_and_not_judged():
    made = record()
    made.memory["watcher"] = memory(slope=100.0)
    assert not soak.judge(made, 1800.0)["passed"]
    made.beside = frozenset({"watcher"})
    verdict = soak.judge(made, 1800.0)
    assert verdict["passed"] and verdict["memory"]["watcher"]["constant"] is False


def test_growing_into_the_work_and_one_late_jump_are_no_leak():
    assert soak.judge(record(start=120.0), 1800.0)["memory_constant"]
    assert soak.judge(record(jump=30.0), 1800.0)["memory_constant"]


def test_a_long_tail_of_latency_fails():
    verdict = soak.judge(record(tail=3.0), 1800.0)
    assert verdict["p99_over_p50"] > 2 and not verdict["latency_steady"] and not verdict["passed"]


def test_missed_cycles_are_counted_also_where_messages_come_out_of_order():
    made = record()
    del made.commands[100:105], made.commands[3000:3001]
    made.commands[7], made.commands[8] = made.commands[8], made.commands[7]
    verdict = soak.judge(made, 60.0)
    assert verdict["missed_cycles"] == 1 and verdict["tick_gap_ms"]["most"] == pytest.approx(60.0)


def test_nothing_seen_is_nothing_passed():
    verdict = soak.judge(Record(), 10.0)
    assert not verdict["passed"] and verdict["p99_over_p50"] is None


def test_memory_is_that_of_the_process():
    here = soak.resident(os.getpid())
    assert here is not None and 10 * MIB < here < 10_000 * MIB
    with mmap.mmap(-1, 64 * MIB) as block:  # memory of its own: an array may get what was freed before
        block.write(bytes(64 * MIB))
        assert soak.resident(os.getpid()) - here > 40 * MIB
    assert soak.resident(2**30) is None
    made = Record()
    made.sample(1.0, {"me": os.getpid(), "gone": 2**30})
    assert list(made.memory) == ["me"]


def test_the_picture_shows_all_three(tmp_path):
    made = record()
    path = soak_plot.draw(tmp_path / "soak.png", made, soak.judge(made, 1800.0))
    assert cv2.imread(str(path)).std() > 10
