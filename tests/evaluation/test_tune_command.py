"""``udvla tune`` from the command line to the parameter file, with a bundle of random weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml

pytest.importorskip("udvla_ros.sim.gl", exc_type=ImportError)

import cv2
import toy_bundle

from udvla_ros.cli import main as cli
from udvla_ros.evaluation import cases
from udvla_ros.evaluation.tuning import tune_observations, tune_run
from udvla_ros.policy import Policy
from udvla_ros.policy.knobs import KNOBS
from udvla_ros.rollouts.episodes import Episode, write_shard


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return toy_bundle.saved(tmp_path_factory.mktemp("bundle") / "toy")


@pytest.fixture
def short(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cases, "CONTROL_STEPS", dict.fromkeys(cases.CONTROL_STEPS, 12))
    monkeypatch.setattr(tune_observations, "EPISODES", 2)
    return tmp_path


def tune(bundle, *more):
    return cli.main(
        [
            "tune",
            "--bundle",
            str(bundle),
            "--moments",
            "3",
            "--seeds",
            "2",
            "--threads",
            "1",
            "--batch",
            "2",
            "--grid",
            "denoise_steps=1,2",
            "--json",
            "r.json",
            "--output",
            "chosen.yaml",
            *more,
        ]
    )


def test_a_file_that_the_node_takes_a_picture_and_a_report(bundle, short, capsys, monkeypatch):
    assert tune(bundle, "--floor", "0.01", "--episodes", "2") == 0
    report = json.loads((short / "r.json").read_text())
    assert report["rows"][0]["name"] == "reference" and len(report["rows"]) == 3
    chosen = next(row for row in report["rows"] if row["name"] == report["chosen"])
    assert "success" in report["rows"][0] and report["rows"][0]["success"]["episodes"] == 2
    assert all(row["latency_ms"]["p95"] >= row["latency_ms"]["p50"] > 0 for row in report["rows"])
    text = (short / "chosen.yaml").read_text()
    (parameters,) = (node["ros__parameters"] for node in yaml.safe_load(text).values())
    for knob in KNOBS:
        assert type(parameters[knob.name]) is type(knob.default), knob.name
    assert parameters["denoise_steps"] == chosen["options"]["steps"]
    assert parameters["threads"] == 1 and parameters["dtype"] == "float32"
    assert text.startswith("# ") and report["bundle"]["hash"][:12] in text
    picture = cv2.imread(str(short / "chosen.png"))
    assert picture.shape[1] > 1000 and picture.std() > 10
    assert "at the front" in capsys.readouterr().out
    # Run again: nothing is measured, and the same is chosen.
    monkeypatch.setattr(tune_run.Run, "_look", lambda *_: pytest.fail("measured again"))
    monkeypatch.setattr(tune_run.Run, "_play", lambda *_: pytest.fail("simulated again"))
    assert tune(bundle, "--floor", "0.01", "--episodes", "2") == 0
    assert (short / "chosen.yaml").read_text() == text
    assert "going on from" in capsys.readouterr().out


def test_what_cannot_be_had_is_exit_code_1_and_no_file(bundle, short, capsys):
    assert tune(bundle, "--budget-ms", "0.001", "--episodes", "0") == 1
    assert not (short / "chosen.yaml").exists() and (short / "chosen.png").exists()
    said = capsys.readouterr().out
    assert "nothing was written: no way of decoding keeps p95 within 0.001 ms" in said
    assert json.loads((short / "r.json").read_text())["chosen"] is None


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--floor", "3"], "--floor 3"),
        (["--grid", "oracle=1"], "--grid 'oracle=1'"),
        (["--robot", "config/robots/panda.yaml"], "can be simulated"),
        (["--observations", "nowhere"], "'nowhere'"),
        (["--seeds", "1"], "--seeds 1"),
        (["--weights", "int2"], "int2"),
    ],
)
def test_wrong_wishes_are_one_line(bundle, short, capsys, more, said):
    assert tune(bundle, "--episodes", "0", *more) == 2
    assert said in capsys.readouterr().err.strip().splitlines()[-1]


def test_moments_of_generated_episodes_are_pairs_of_looks(bundle, short):
    policy = Policy.load(bundle)
    folder = short / "data"
    episodes = [noise_episode(seed) for seed in range(2)]
    write_shard(folder / "shard-00000.npz", episodes)
    found = tune_observations.collect(policy, str(folder), 5, execute=4)
    assert len(found) == 5
    for moment in found:
        assert moment.now.stamp - moment.earlier.stamp == pytest.approx(0.4)
        assert moment.now.instruction == moment.earlier.instruction in {e.instruction for e in episodes}
        assert any(np.array_equal(moment.now.images["front"], frame) for e in episodes for frame in e.images["front"])


def noise_episode(seed):
    """An episode whose pictures are all different."""
    rng = np.random.default_rng(seed)
    steps, sizes = 21, {"front": (12, 16), "wrist": (8, 8)}

    def zeros(*shape):
        return np.zeros(shape, np.float32)

    return Episode(
        {name: rng.integers(0, 256, (steps + 1, *size, 3), np.uint8) for name, size in sizes.items()},
        zeros(steps, 8, 7),
        zeros(steps, 7),
        zeros(steps + 1, 6),
        zeros(steps + 1, 6),
        zeros(steps + 1),
        zeros(steps + 1),
        zeros(steps + 1, 4, 4),
        zeros(steps + 1, 3, 7),
        "touch the red cube",
        "touch",
        "red",
        seed,
        0,
        -1,
    )


def test_moments_of_recorded_bags_are_pairs_of_looks(bundle, short):
    synthetic_bag = pytest.importorskip("synthetic_bag")
    for name in ("one", "two"):
        synthetic_bag.episode(short / "bags" / name)
    policy = Policy.load(bundle)
    found = tune_observations.collect(policy, str(short / "bags"), 6, execute=4)
    assert len(found) == 6
    for moment in found:
        assert moment.now.stamp - moment.earlier.stamp == pytest.approx(0.4)
        assert moment.now.instruction == synthetic_bag.LABELS["instruction"]
        times = [look.stamp - synthetic_bag.BEGIN for look in (moment.earlier, moment.now)]
        bars = [int(np.argmax(look.images["front"][0, :, 0] > 200)) for look in (moment.earlier, moment.now)]
        np.testing.assert_allclose(bars, [time * 8 % 64 for time in times], atol=1.0)
    assert policy.infer(found[0].now).actions.shape == (8, 7)


def test_bags_that_do_not_fit_are_one_line(bundle, short, capsys):
    synthetic_bag = pytest.importorskip("synthetic_bag")
    labels = {**synthetic_bag.LABELS, "instruction": ""}
    synthetic_bag.episode(short / "bags" / "mute", labels=labels)
    assert tune(bundle, "--episodes", "0", "--observations", "bags") == 2
    assert "what was asked for" in capsys.readouterr().err.strip().splitlines()[-1]
    (short / "empty").mkdir()
    assert tune(bundle, "--episodes", "0", "--observations", "empty") == 2
    assert "'empty' has no two looks" in capsys.readouterr().err
