"""``udvla demo`` says at once what is wrong with the bundle, before any process is started."""

from __future__ import annotations

import hashlib

import pytest

pytest.importorskip("rclpy")

from udvla_ros.cli import demo
from udvla_ros.cli import main as cli


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no bundle at"),
        ("", "holds no config.json"),
        ("{", "is no bundle configuration"),
        ("[]", "is no bundle"),
    ],
)
def test_no_bundle_is_one_line(tmp_path, capsys, content, said, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "bundle"
    if content is not None:
        folder.mkdir()
    if content:
        (folder / "config.json").write_text(content)
    assert cli.main(["demo", "--bundle", str(folder)]) == 2
    line = capsys.readouterr().err.strip()
    assert said in line and "\n" not in line
    assert not (tmp_path / "runs").exists()


def test_identity_is_that_of_the_configuration(tmp_path):
    (tmp_path / "config.json").write_text('{"name": "toy"}')
    found = demo._bundle_identity(str(tmp_path))
    assert found == {"name": "toy", "hash": hashlib.sha256(b'{"name": "toy"}').hexdigest()}


def test_counters_are_picked_by_prefix():
    assert demo.counts({"refused/stale": "2", "accepted": "7"}, "refused/") == {"stale": 2}
