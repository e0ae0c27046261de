"""The benchmark measures what it says, in turns, and tells when decoders disagree."""

from __future__ import annotations

import json

import pytest
import tiny

from udvla_ros.cli import main as cli
from udvla_ros.decoding.interface import DecodeOptions
from udvla_ros.errors import ConfigError
from udvla_ros.evaluation import decode_bench, random_bundle
from udvla_ros.evaluation.decode_bench import Comparison, Contender, jd3p_contenders, measure
from udvla_ros.policy import Policy


@pytest.fixture(scope="module")
def report():
    return measure(Policy(tiny.bundle()), *jd3p_contenders(4), repeat=3)


def test_rows_say_what_was_run(report):
    cached, full = report.rows
    assert (cached.name, cached.cached, cached.forwards) == ("jd3p", True, 5)
    assert (full.name, full.cached, full.forwards) == ("jd3p_uncached", False, 4)
    assert cached.forward_tokens == 4 * tiny.layout().suffix_length
    assert full.forward_tokens == 4 * (tiny.layout().suffix_length + tiny.layout().prefix_length)
    for row in report.rows:
        assert row.slots == tiny.layout().suffix_length
        assert list(row.timings_ms["total"]) == ["p50", "p95", "p99"]
        assert row.timings_ms["total"]["p50"] >= row.timings_ms["decode"]["p50"] > 0
        assert row.slots_per_second == pytest.approx(1e3 * row.slots / row.timings_ms["denoise"]["p50"], rel=0.01)


def test_ratio_is_of_medians_and_tokens_were_compared(report):
    cached, full = report.rows
    ratio = report.ratios["cached_vs_uncached"]
    medians = [row.timings_ms["decode"]["p50"] for row in (full, cached)]
    assert ratio.decode == pytest.approx(medians[0] / medians[1], rel=0.01)
    assert ratio.same_tokens is True
    assert (report.weights, report.threads, report.repeat) == ("bundle", 1, 3)


def test_different_tokens_are_noticed():
    contenders = [Contender("a", DecodeOptions(steps=1)), Contender("b", DecodeOptions(steps=6))]
    pairs = [Comparison("exact", "a", "b", exact=True), Comparison("loose", "a", "b")]
    ratios = measure(Policy(tiny.bundle()), contenders, pairs, repeat=2).ratios
    assert ratios["exact"].same_tokens is False
    assert ratios["loose"].same_tokens is None


def test_contenders_take_turns_and_nobody_is_always_first(monkeypatch):
    policy, order = Policy(tiny.bundle()), []
    original = policy.infer
    monkeypatch.setattr(policy, "infer", lambda o, options: order.append(options.use_cache) or original(o, options))
    measure(policy, *jd3p_contenders(2), repeat=4)
    assert order[4:] == [True, False, False, True] * 2


def test_command_writes_a_report_and_says_random(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(random_bundle, "random_bundle", lambda name: tiny.bundle())
    file = tmp_path / "bench.json"
    arguments = ["bench", "decode", "--backbone", "nano", "--repeat", "2", "--steps", "2", "--json", str(file)]
    assert cli.main(arguments) == 0
    values = json.loads(file.read_text())
    assert values["weights"] == "random"
    assert [row["name"] for row in values["rows"]] == ["jd3p", "jd3p_uncached"]
    assert values["ratios"]["cached_vs_uncached"]["same_tokens"] is True
    said = capsys.readouterr().out
    assert "RANDOM WEIGHTS" in said
    assert "1 threads" in said


def test_command_fails_where_tokens_differ(monkeypatch):
    monkeypatch.setattr(random_bundle, "random_bundle", lambda name: tiny.bundle())
    monkeypatch.setattr(decode_bench, "_equal", lambda a, b: False)
    assert cli.main(["bench", "decode", "--backbone", "nano", "--repeat", "1", "--steps", "1"]) == 1


def test_random_sizes_hold_together():
    bundle = random_bundle.random_bundle("nano")
    bundle.check()
    assert bundle.config.name == "random-nano"
    chunk = Policy(bundle).infer(decode_bench.observations(bundle, 1)[0], DecodeOptions(steps=1))
    assert chunk.actions.shape == (8, 7)
    small = random_bundle.sizes()["small"]
    assert small.views == {"front": (200, 200), "wrist": (80, 80)}  # 25x25 + 10x10 codes
    with pytest.raises(ConfigError, match="nano, small"):
        random_bundle.random_bundle("huge")
