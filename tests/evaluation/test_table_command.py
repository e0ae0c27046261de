"""``udvla eval table`` from the command line to the page, with a bundle of random weights."""

from __future__ import annotations

import json

import cv2
import pytest

pytest.importorskip("udvla_ros.sim.gl", exc_type=ImportError)

import toy_bundle

from udvla_ros.cli import main as cli
from udvla_ros.evaluation import cases
from udvla_ros.evaluation.tables import table_run, table_timing

TABLE = """
title: Toys
tasks: [touch]
reference: slow
rows:
  - {name: slow, bundle: toy, decoding: {steps: 4, temperature: 1.0}}
  - {name: same, bundle: toy, decoding: {steps: 4, temperature: 1.0}}
  - {name: fast, bundle: toy, decoding: {steps: 1}, label: one step}
  - {name: other, bundle: "other-{seed}", seeds: [3], made_by: "udvla train --seed {seed}"}
expect: [fast > slow, tokens/s of slow >= 0.01 x fast, steps of fast <= 1]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    toy_bundle.saved(folder / "toy")
    return folder


@pytest.fixture
def short(monkeypatch, folder):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(cases, "CONTROL_STEPS", dict.fromkeys(cases.CONTROL_STEPS, 8))
    (folder / "toys.yaml").write_text(TABLE)
    return folder


def table(*more):
    return cli.main(
        ["eval", "table", "toys.yaml", "--episodes", "2", "--threads", "1", "--batch", "2", "--chunks", "3", *more]
    )


def test_a_table_is_measured_drawn_and_gone_on_with(short, capsys, monkeypatch):
    assert table() == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "row 'other', training seed 3: there is no bundle other-3; make it with: udvla train --seed 3" in line
    assert not (short / "runs").exists(), "nothing is run before all is there"
    # First one row alone, then all that can be had.
    assert table("--only", "slow", "--json", "one.json") == 0
    rows = json.loads((short / "one.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["slow", "same"], "one way of decoding plays once"
    assert "row 'fast' has not been run yet" in capsys.readouterr().out
    assert table("--skip-missing", "--json", "all.json") == 0
    told = json.loads((short / "all.json").read_text())
    assert json.loads((short / "runs/tables/toys/table.json").read_text()) == told
    slow, same, fast = told["rows"]
    assert fast["decoding"]["steps"] == 1 and fast["label"] == "one step" and len(fast["bundles"]["0"]["hash"]) == 64
    assert slow["won"] == same["won"] and same["against"]["all"]["pairs"] == 2, "the same scenes and the same draws"
    assert slow["timing"] == same["timing"], "one way of decoding is timed once"
    assert slow["timing"]["forwards"] == 5 and fast["timing"]["forwards"] == 2
    assert told["timing"]["chunks"] == 3 and told["timing"]["threads"] == 1
    assert any("no bundle other-3" in note for note in told["notes"])
    assert [claim["holds"] for claim in told["claims"]][1:] == ["yes", "yes"]
    assert cv2.imread(str(short / "runs/tables/toys/toys.png")).std() > 10
    page = (short / "runs/tables/toys/toys.md").read_text()
    assert "# Toys" in page and "| one step | " in page
    out, err = capsys.readouterr()
    assert "| one step | " in out and "left out: row 'other'" in err
    # Again: nothing is measured.
    monkeypatch.setattr(table_run, "_player", lambda *_: pytest.fail("played again"))
    monkeypatch.setattr(table_timing, "measure", lambda *_: pytest.fail("timed again"))
    assert table("--skip-missing", "--json", "again.json") == 0
    again = json.loads((short / "again.json").read_text())
    assert {**again, "command": ""} == {**told, "command": ""}


@pytest.mark.slow
def test_several_processes_play_the_same_scenes(short):
    assert table("--only", "slow", "--out", "one", "--chunks", "0") == 0
    assert table("--only", "slow", "--out", "two", "--chunks", "0", "--workers", "2") == 0
    one, two = (json.loads((short / name / "measured.jsonl").read_text()) for name in ("one", "two"))
    assert one["key"] == two["key"]
    for name in ("seed", "instruction"):
        assert [e[name] for e in one["result"]["episodes"]] == [e[name] for e in two["result"]["episodes"]]
    told = json.loads((short / "one/table.json").read_text())
    assert told["timing"] is None and told["rows"][0]["timing"] is None


def test_the_views_are_of_different_moments_and_as_the_bundle_wants_them(short):
    seen = table_timing.views(("touch", "pick"), 4)
    assert len({look.images["front"].tobytes() for look in seen}) == 4
    assert len({look.instruction for look in seen}) > 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--only", "nobody"], "no row 'nobody'"),
        (["--seed", "-1"], "--seed -1"),
        (["--latency-steps", "9"], "--latency-steps 9"),
        (["--only", "other", "--skip-missing"], "none of the rows other could be run"),
    ],
)
def test_wrong_wishes_are_one_line(short, capsys, more, said):
    assert table("--out", "wrong", *more) == 2
    assert said in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("decoding", "said"),
    [
        ("{decoder: autoregressive}", "row 'x': decoder 'autoregressive'"),
        ("{steps: 0}", "row 'x': steps is 0"),
        ("{stepps: 3}", "row 'x':"),
    ],
)
def test_a_way_that_a_bundle_cannot_be_decoded_in_is_found_before_the_first_episode(short, capsys, decoding, said):
    rows = f"[{{name: slow, bundle: toy}}, {{name: x, bundle: toy, decoding: {decoding}}}]"
    (short / "toys.yaml").write_text(f"title: T\ntasks: [touch]\nreference: slow\nrows: {rows}\n")
    assert table("--out", "unfit") == 2
    assert said in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (short / "unfit").exists()
