"""Simulated episodes are kept as they come, and a run that was broken off goes on where it was."""

from __future__ import annotations

import argparse

import pytest

from udvla_ros.cli.eval_monitor import collect
from udvla_ros.errors import ConfigError
from udvla_ros.evaluation.watch import runs
from udvla_ros.monitor.episode import ScoredEpisode, begun

COUNTS = {"plain": 5, "taken": 3}


class BrokenOff(Exception):
    """The machine went down."""


@pytest.fixture
def played(monkeypatch):
    """Cases that were run, by key; ``played.most`` breaks the run off."""

    class Played(list):
        most = 1000

    made = Played()

    def play(watching, cases, workers, done):
        for case in cases[::-1]:  # workers end in any order
            if len(made) >= made.most:
                raise BrokenOff
            made.append(case.key)
            done(ScoredEpisode(*case.key[:2], case.key[2], True, "", 3.0, [0.5], [{"disagreement": 0.123456789}]))

    monkeypatch.setattr(runs, "watch_parallel", play)
    return made


def go(kept, of="bundle 5c417", seed=7):
    args = argparse.Namespace(bundle="models/udvla-nano-ur5e", seed=seed, device="cpu", threads=1, workers=1)
    return collect(args, COUNTS, kept, of)


def test_what_was_run_before_the_end_is_not_run_again(tmp_path, played):
    kept = tmp_path / "episodes.jsonl"
    played.most = 3
    with pytest.raises(BrokenOff):
        go(kept)
    kept.write_bytes(kept.read_bytes() + b'{"kind": "plain", "ta')  # cut off in the middle of a line
    played.most = 1000
    episodes = go(kept)
    assert len(played) == len(set(played)) == 8, "each once"
    assert [e.kind for e in episodes] == ["plain"] * 5 + ["taken"] * 3, "in the order of the cases, whoever was first"
    before = kept.read_bytes()
    assert {e.key for e in go(kept)} == {e.key for e in episodes} and len(played) == 8 and kept.read_bytes() == before
    assert [e.key for e in begun(kept, "bundle 5c417")] == played


def test_episodes_of_another_bundle_are_no_beginning(tmp_path, played):
    kept = tmp_path / "episodes.jsonl"
    go(kept)
    with pytest.raises(ConfigError, match="holds episodes of bundle 5c417, and not of bundle 0ther"):
        go(kept, "bundle 0ther")
