"""``udvla eval`` from the command line to the report, with a bundle of random weights."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("udvla_ros.sim.gl", exc_type=ImportError)

import toy_bundle

from udvla_ros.cli import main as cli
from udvla_ros.errors import ConfigError
from udvla_ros.evaluation import cases, suite


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return toy_bundle.saved(tmp_path_factory.mktemp("bundle") / "toy")


@pytest.fixture
def short(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cases, "CONTROL_STEPS", {"touch": 8, "pick": 8})
    return tmp_path


def evaluate(bundle, folder, *more):
    arguments = ["eval", "--bundle", str(bundle), "--json", str(folder / "f.json"), "--threads", "1", "--batch", "2"]
    assert cli.main([*arguments, *more]) == 0
    return json.loads((folder / "f.json").read_text())


def test_a_report_of_all_tasks_and_the_swap(bundle, short, capsys):
    report = evaluate(
        bundle,
        short,
        "--task",
        "all,swap",
        "--episodes",
        "2",
        "--seed",
        "9",
        "--latency-samples",
        "3",
        "--steps",
        "2",
        "--dump",
        "pictures",
    )
    assert set(report["tasks"]) == {"touch", "pick"}
    for section in report["tasks"].values():
        assert section["episodes"] == 2 and section["ci95"][0] <= section["rate"] <= section["ci95"][1]
        assert section["successes"] + sum(section["failures"].values()) == 2
    assert report["swap"]["words"]["count"] == 6 and report["swap"]["scenes"]["count"] == 2
    assert {"image_encode", "prefill", "denoise", "detokenise", "total"} <= set(report["latency_ms"])
    assert report["bundle"]["name"] == "toy-random" and len(report["bundle"]["hash"]) == 64
    assert report["options"]["decoding"]["steps"] == 2 and report["command"].split()[0] == "udvla"
    assert {e["seed"] for e in report["episodes"]} == {1_000_009, 1_000_010}
    assert json.loads((short / "runs/eval/latest/report.json").read_text()) == report
    assert len(list((short / "pictures" / "swap").glob("*.png"))) == 4
    said = capsys.readouterr().out
    assert "touch" in said and "words right" in said


def test_the_same_seed_gives_the_same_episodes(bundle, short):
    more = ("--task", "touch", "--episodes", "2", "--latency-samples", "0")
    first, second = (evaluate(bundle, short, *more)["episodes"] for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--task", "juggle"], "no task 'juggle'"),
        (["--seed", "-3"], "--seed -3"),
        (["--latency-steps", "9"], "--latency-steps 9"),
        (["--bundle", "nowhere"], "nowhere"),
        (["--steps", "0"], "steps is 0"),
    ],
)
def test_wrong_wishes_are_one_line(bundle, short, capsys, more, said):
    arguments = ["eval", "--bundle", str(bundle), "--episodes", "1", *more]
    assert cli.main(arguments) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in line


def test_names_of_tasks():
    assert suite.kinds_of("all", ("touch", "push")) == ("touch", "push")
    assert suite.kinds_of("push,place") == ("push", "place")
    assert suite.kinds_of("swap,touch,touch") == ("swap", "touch")
    with pytest.raises(ConfigError):
        suite.kinds_of("")


def test_every_knob_of_decoding_is_taken_and_told(bundle, short):
    report = evaluate(
        bundle,
        short,
        "--task",
        "touch",
        "--episodes",
        "2",
        "--latency-samples",
        "1",
        "--steps",
        "4",
        "--action-steps",
        "2",
        "--stop-when-ready",
        "--sampler",
        "exact",
        "--samples",
        "2",
        "--remask",
        "0.1",
        "--cut-unreachable",
        "--schedule",
        "paper",
        "--confidence-threshold",
        "0.9",
    )
    wanted = {"steps": 4, "action_steps": 2, "stop_when_ready": True, "sampler": "exact", "samples": 2, "remask": 0.1}
    assert report["options"]["decoding"].items() >= wanted.items()
    assert report["options"]["cut_unreachable"], "as the loop was run, not as it was asked for"
    assert not report["tasks"]["touch"]["refused_chunks"], "several samples of several worlds went wrong"


def test_two_ways_of_decoding_are_compared_on_the_same_episodes(bundle, short, capsys):
    more = ("--task", "touch", "--episodes", "3", "--latency-samples", "0")
    first = evaluate(bundle, short, *more, "--steps", "1")
    (short / "f.json").rename(short / "first.json")
    second = evaluate(bundle, short, *more, "--steps", "3", "--against", "first.json")
    for name in ("seed", "task", "instruction", "condition"):
        assert [e[name] for e in first["episodes"]] == [e[name] for e in second["episodes"]], name
    told = second["against"]
    assert told["pairs"] == 3 == told["both"] + told["only_first"] + told["only_second"] + told["neither"]
    assert "3 pairs" in capsys.readouterr().out
    arguments = ["eval", "--bundle", str(bundle), *more, "--against", "nowhere.json"]
    assert cli.main(arguments) == 2
    assert "nowhere.json is no report" in capsys.readouterr().err
