from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from udvla_ros.errors import ConfigError
from udvla_ros.monitor.calibration import Calibration, conformal, fit, held, surprise
from udvla_ros.monitor.episode import ScoredEpisode, read_episodes, write_episodes
from udvla_ros.monitor.watch import Watch
from udvla_ros.resources import find


def episode(rng: np.random.Generator, success: bool = True, shift: float = 0.0, kind: str = "plain") -> ScoredEpisode:
    """An episode of 10 to 20 chunks with one score that tells and one that does not."""
    count = int(rng.integers(10, 20))
    told = np.abs(rng.normal(size=count)) + shift * (np.arange(count) > count // 2)
    noise = rng.random(count)
    times = [0.4 * i for i in range(count)]
    scores = [
        {"disagreement": float(a), "reversals": float(b), "elapsed": t}
        for a, b, t in zip(told, noise, times, strict=True)
    ]
    return ScoredEpisode(kind, "", -1, success, "", 0.4 * count, times, scores)


def episodes(count: int, seed: int = 0, **more) -> list[ScoredEpisode]:
    rng = np.random.default_rng(seed)
    return [episode(rng, **more) for _ in range(count)]


def alarms(watch: Watch, episode: ScoredEpisode) -> bool:
    watch = watch.anew()
    return any(watch.update(scores).alarm for scores in episode.scores)


@pytest.mark.parametrize("patience", [1, 3])
def test_false_alarms_stay_within_the_rate_and_failures_are_seen(patience):
    failed = episodes(60, 1, success=False, shift=3.0)
    calibration = fit([*episodes(400), *failed], "5c417", rate=0.1, patience=patience)
    watch = Watch(calibration)
    false = np.mean([alarms(watch, e) for e in episodes(600, 2)])
    seen = np.mean([alarms(watch, e) for e in episodes(100, 3, success=False, shift=3.0)])
    assert 0.0 < false < 0.15, "0.1 is the bound on average over calibrations; three standard errors above it"
    assert seen > 0.8
    assert calibration.weights["disagreement"] > 3 * calibration.weights["reversals"]


@given(st.integers(1, 300), st.floats(0.005, 0.5), st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_the_threshold_is_exceeded_by_no_more_than_the_rate_of_exchangeable_values(count, rate, seed):
    """Leave each of n + 1 values out in turn: at most that share of them exceeds what the others give."""
    values = np.random.default_rng(seed).normal(size=count + 1)
    beyond = [value > conformal(np.delete(values, i), rate) for i, value in enumerate(values)]
    assert np.sum(beyond) <= rate * (count + 1) + 1e-9


def test_held_is_the_level_that_was_kept_long_enough():
    values = [0.0, 5.0, 2.0, 3.0, 0.0]
    assert [held(values, p) for p in (1, 2, 3, 4)] == [5.0, 2.0, 2.0, 0.0]
    assert held([1.0], 2) == 0.0


def test_patience_is_chunks_in_a_row():
    watch = Watch(fit(episodes(100), "5c417", 0.1), patience=2, threshold=1.0)
    high, low = {"disagreement": 9.0}, {"disagreement": 0.0}
    assert [watch.update(s).alarm for s in (high, low, high, high, high)] == [False, False, False, True, True]
    watch.reset()
    assert not watch.update(high).alarm
    assert "contradict" in watch.update(high).reason


@given(st.floats(-5, 50), st.floats(0, 50))
@settings(max_examples=60, deadline=None)
def test_surprise_grows_with_the_score_and_stays_bounded(value, more):
    reference = np.quantile(np.random.default_rng(0).gamma(2.0, size=500), np.linspace(0, 1, 62)).tolist()
    low, high = surprise(value, reference), surprise(value + more, reference)
    assert 0.0 <= low <= high + 1e-12 and high <= 3.5


def test_a_word_never_seen_is_a_surprise_though_no_success_had_one():
    usual = episodes(100)
    for e in usual:
        e.scores = [s | {"unknown_words": 0.0, "delay": 0.1} for s in e.scores]
    calibration = fit(usual, "5c417", 0.1)
    assert calibration.total({"unknown_words": 1.0}) > 3.0 > calibration.total({"unknown_words": 0.0})
    assert "delay" not in calibration.reference, "what never varied in the calibration says nothing"


def test_too_few_successes_are_refused_with_what_is_needed():
    with pytest.raises(ConfigError, match="198 are needed"):
        fit(episodes(80), "5c417", rate=0.01)
    with pytest.raises(ConfigError, match="share between 0 and 1"):
        fit(episodes(80), "5c417", rate=0.0)


def test_disturbed_successes_do_not_count_as_usual():
    with pytest.raises(ConfigError, match="0 successful"):
        fit(episodes(80, kind="light"), "5c417", rate=0.1)


def test_the_file_knows_its_bundle(tmp_path):
    made = fit(episodes(80), "5c417", 0.1)
    made.save(tmp_path)
    assert Calibration.load(tmp_path, "5c417") == made
    with pytest.raises(ConfigError, match=r"fitted to bundle 5c417 and this one is 0ther.*udvla monitor fit"):
        Calibration.load(tmp_path, "0ther")
    (tmp_path / "monitor.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"udvla monitor fit"):
        Calibration.load(tmp_path, "5c417")
    with pytest.raises(ConfigError, match=r"has no monitor\.json"):
        Calibration.load(tmp_path / "elsewhere", "5c417")


def test_episodes_survive_their_file(tmp_path):
    written = episodes(3)
    read = read_episodes(write_episodes(tmp_path / "scores.jsonl", written))
    assert [e.times for e in read] == [e.times for e in written]
    assert read[0].scores[0]["disagreement"] == pytest.approx(written[0].scores[0]["disagreement"], abs=1e-5)
    (tmp_path / "scores.jsonl").write_text('{"kind": "plain"}\n')
    with pytest.raises(ConfigError, match="line 1"):
        read_episodes(tmp_path / "scores.jsonl")


def test_the_shipped_calibration_comes_of_the_episodes_beside_it(tmp_path):
    folder = find("models/udvla-nano-ur5e")
    shipped = json.loads((folder / "monitor.json").read_text())
    seen = read_episodes(folder / "monitor_episodes.jsonl")
    made = fit(seen, shipped["bundle"], shipped["rate"], shipped["patience"], shipped["command"])
    assert json.loads(made.save(tmp_path).read_text()) == shipped
