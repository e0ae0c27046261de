"""Bags and a parent in, a judged child out: the mechanics, on a bundle of random weights."""

from __future__ import annotations

import json

import learning_bags as bags
import numpy as np
import pytest
import toy_bundle
from hypothesis import given
from hypothesis import strategies as st

from udvla_ros.cli.main import main
from udvla_ros.learning.judge import Errors, compare
from udvla_ros.learning.plan import fitting, split
from udvla_ros.model.checkpoint import Bundle
from udvla_ros.rollouts.episodes import read_description, read_episodes
from udvla_ros.tokens.layout import View

QUICK = ["--steps", "6", "--set", "training.batch=4", "--set", "training.validate_every=6", "--threads", "1"]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bags")
    for k in range(3):
        bags.demonstrated(folder / f"hand{k}", camera_hz=10.0)
    bags.taken_over(folder / "helped")
    return folder


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    return toy_bundle.saved(tmp_path_factory.mktemp("parent") / "bundle")


@pytest.fixture(scope="module")
def learnt(recorded, parent, tmp_path_factory):
    out = tmp_path_factory.mktemp("learnt") / "press"
    code = main(["learn", str(recorded), "--bundle", str(parent), "--out", str(out), *QUICK])
    return code, out


def test_a_child_is_made_and_judged(learnt):
    code, out = learnt
    report = json.loads((out / "report.json").read_text())
    assert code == (0 if report["released"] else 1)
    assert report["child"]["frames"] == report["parent_errors"]["frames"] > 20 and report["why"]
    assert len(report["exported"]["data"]["taken"]) == 3 and len(report["exported"]["held_out"]["taken"]) == 1
    assert report["data"]["steps_by"]["demonstrated"] > 60 and (out / "report.png").stat().st_size > 5000
    child = Bundle.load(out / "run" / "bundle")
    assert child.config.name == "press" and "press the button" in child.sentences
    assert {"press", "button"} <= set(child.text.words())
    assert child.config.cameras == ("front", "wrist") and child.config.views[0].height == toy_bundle.VIEWS[0].height
    if report["released"]:
        card = (out / "bundle" / "README.md").read_text()
        assert "toy-random" in card and "ur5e_sim (" in card and "udvla learn" in card


def test_a_finished_child_is_not_overwritten(learnt, recorded, parent, capsys):
    _, out = learnt
    (out / "bundle").mkdir(exist_ok=True)
    assert main(["learn", str(recorded), "--bundle", str(parent), "--out", str(out), *QUICK]) == 2
    assert "holds a finished child" in capsys.readouterr().err


def test_elsewhere_it_is_trained_from_one_archive(recorded, parent, tmp_path):
    here, there, archive = tmp_path / "here", tmp_path / "there", tmp_path / "task.tar.gz"
    how = ["--bundle", str(parent), "--space", "joint_delta", *QUICK]
    assert main(["learn", str(recorded), "--out", str(here), *how, "--pack", str(archive)]) == 0
    assert not (here / "run").exists()
    assert main(["learn", str(archive), "--out", str(there), "--threads", "1"]) in (0, 1)
    child = Bundle.load(there / "run" / "bundle")
    action = child.config.action
    assert (action.space, action.dimensions, action.gripper) == ("joint_delta", 7, 6), "codes of its own, refitted"
    assert len(child.config.joints) == 6
    told = json.loads((there / "report.json").read_text())
    assert told["parent_errors"] is None and "another space" in told["why"]


def test_not_an_archive(tmp_path, capsys):
    wrong = tmp_path / "wrong.tar.gz"
    wrong.write_bytes(b"nothing")
    assert main(["learn", str(wrong), "--out", str(tmp_path / "out")]) == 2
    assert "cannot be unpacked" in capsys.readouterr().err


# -- parts ---------------------------------------------------------------------------------------------------
@given(st.integers(90, 1300), st.integers(90, 1300))
def test_a_camera_keeps_its_shape(tall, wide):
    view = View("front", 48, 64, 6, 8)
    if not 0.25 < tall / wide < 4:
        return
    height, width = fitting((tall, wide), view)
    assert height % 8 == width % 8 == 0 and height * width <= 1.5 * 48 * 64
    assert abs(np.log(height / width * wide / tall)) < 0.35
    assert fitting((480, 640), view) == (48, 64)


def test_every_tenth_is_held_out():
    folders = [str(k) for k in range(25)]
    learn, held = split(folders)
    assert held == ["9", "19"] and len(learn) == 23
    assert split(folders[:2]) == (["0"], ["1"]) and split(folders[:1]) == (["0"], [])


def errors(position, gripper=1.0):
    size = len(position)
    return Errors(np.asarray(position, float), np.zeros(size), np.full(size, gripper), "mm")


def test_a_child_that_is_worse_is_not_released():
    rng = np.random.default_rng(0)
    before = rng.uniform(1, 9, 150)
    assert compare(errors(before), errors(before * 0.6))[0]
    assert compare(errors(before), errors(before * 1.01))[0], "within what is called the same"
    assert not compare(errors(before), errors(before * 1.4))[0]
    assert not compare(errors(before), errors(before, gripper=0.8))[0]
    assert not compare(errors(before), errors(np.full(150, np.nan)))[0]
    assert compare(None, errors(before))[0]


def test_data_sets_are_learnt_from_too(parent, tmp_path, capsys):
    data, out = tmp_path / "data", tmp_path / "child"
    assert main(["data", "generate", "--out", str(data), "--episodes", "5", "--tasks", "touch"]) == 0
    assert main(["learn", str(data), str(tmp_path), "--bundle", str(parent), "--out", str(out), *QUICK]) == 2
    assert "udvla bag export" in capsys.readouterr().err
    more = ["--scenes", "1", "--condition", "camera"]
    code = main(["learn", str(data), "--bundle", str(parent), "--out", str(out), *QUICK, *more])
    report = json.loads((out / "report.json").read_text())
    assert code == (0 if report["released"] else 1) and report["closed_loop"]["paired"]["pairs"] == 1
    seeds = {part: {e.seed for e in read_episodes(out / part)} for part in ("data", "held_out")}
    assert not seeds["data"] & seeds["held_out"] and seeds["data"] | seeds["held_out"] == set(range(5))
    told = read_description(out / "data")
    assert told["episodes"] == len(report["exported"]["data"]["taken"])
    assert told["cameras"] == {v.name: [v.height, v.width] for v in toy_bundle.VIEWS}
