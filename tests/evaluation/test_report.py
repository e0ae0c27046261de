"""Run folders, the link to the newest, and reports that are whole or absent."""

from __future__ import annotations

import json

from udvla_ros.evaluation.report import run_folder, write_report


def test_latest_points_at_the_newest(tmp_path):
    first, second = (run_folder("eval", root=tmp_path) for _ in range(2))
    assert first != second and first.parent == second.parent == tmp_path / "eval"
    link = tmp_path / "eval" / "latest"
    assert link.is_symlink() and link.resolve() == second.resolve()
    assert not link.readlink().is_absolute(), "the folder may be moved"


def test_a_folder_called_latest_is_left_alone(tmp_path):
    kept = tmp_path / "eval" / "latest"
    kept.mkdir(parents=True)
    run_folder("eval", root=tmp_path)
    assert kept.is_dir() and not kept.is_symlink()


def test_a_folder_of_ones_own_gets_no_link(tmp_path):
    assert run_folder("eval", tmp_path / "mine", root=tmp_path) == tmp_path / "mine"
    assert not (tmp_path / "eval").exists()


def test_a_report_replaces_the_old_one(tmp_path):
    path = tmp_path / "deep" / "report.json"
    write_report(path, {"a": 1})
    write_report(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 2}
    assert [p.name for p in path.parent.iterdir()] == ["report.json"]
