"""The command line of the data room."""

import argparse
import json

import pytest

from udvla_ros.cli import data
from udvla_ros.errors import UdvlaError


@pytest.fixture
def parser():
    parser = argparse.ArgumentParser()
    data.register(parser.add_subparsers(required=True))
    return parser


def test_generate_passes_everything_on(parser, tmp_path, monkeypatch, capsys):
    from udvla_ros.rollouts import generate as room

    seen = {}
    monkeypatch.setattr(
        room, "generate", lambda folder, config, workers, make_driver: seen.update(locals()) or {"episodes": 7}
    )
    report = tmp_path / "report.json"
    words = f"data generate --out {tmp_path}/d --episodes 7 --seed 3 --workers 2 --tasks pick --noise 0.5"
    words += " --tray 0.1 --distractors 0.2 --light 0.3 --camera 2"
    args = parser.parse_args([*words.split(), "--json", str(report)])
    assert args.run(args) == 0
    assert seen["config"] == room.Config(7, 3, ("pick",), 0.5, 0.1, 0.2, 0.3, 2.0)
    assert (seen["folder"], seen["workers"], seen["make_driver"]) == (tmp_path / "d", 2, None)
    assert json.loads(report.read_text()) == json.loads(capsys.readouterr().out) == {"episodes": 7}


def test_evaluation_seeds_are_refused(parser, tmp_path):
    args = parser.parse_args(f"data generate --out {tmp_path} --seed 1000000 --episodes 1".split())
    with pytest.raises(UdvlaError, match="evaluation"):
        args.run(args)


@pytest.mark.parametrize("workers", ["0", "-1", "two"])
def test_workers_must_be_a_number(parser, workers):
    with pytest.raises(SystemExit):
        parser.parse_args(["data", "generate", "--out", "x", "--workers", workers])


def test_inspect_of_nothing_names_the_mend(parser, tmp_path):
    args = parser.parse_args(["data", "inspect", str(tmp_path)])
    with pytest.raises(UdvlaError, match="run it again"):
        args.run(args)
