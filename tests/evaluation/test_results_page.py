"""The page of results: everything on it comes from the reports."""

from __future__ import annotations

import json

import cv2
import pytest
from staged_table import first, result, spec, timings

from udvla_ros.cli import main as cli


@pytest.fixture
def reports(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = result(spec(expect=["b > a"]), first((10, 19)), tmp_path / "runs", timings(a=100.0, b=2000.0))
    (tmp_path / "table.json").write_text(json.dumps(told))
    part = {"episodes": 2, "successes": 1, "rate": 0.5, "ci95": [0.1, 0.9], "mean_steps": 20.0}
    plain = {
        "suite": "tabletop",
        "tasks": {"touch": part},
        "bundle": {"name": "nano", "hash": "f" * 64},
        "options": {},
        "latency_ms": {"total": {"p50": 10.0, "p95": 12.0, "p99": 12.0}},
        "command": "udvla eval --task touch",
        "episodes": [{"task": "touch", "success": True}, {"task": "touch", "success": False}],
        "swap": {
            "words": {"count": 3, "right": 3, "rate": 1.0, "ci95": [0.44, 1.0]},
            "scenes": {"count": 1, "followed": 1, "rate": 1.0, "ci95": [0.2, 1.0]},
        },
    }
    (tmp_path / "plain.json").write_text(json.dumps(plain))
    return tmp_path


def test_a_page_with_tables_pictures_commands_hashes_and_raw_numbers(reports, capsys):
    assert cli.main(["eval", "results", "table.json", "plain.json", "--out", "docs/results.md"]) == 0
    page = (reports / "docs/results.md").read_text()
    told = json.loads((reports / "table.json").read_text())
    assert json.loads((reports / "docs/results/t.json").read_text()) == told
    assert cv2.imread(str(reports / "docs/results/t.png")).std() > 10
    for line in ("## T", "![T](results/t.png)", "[t.json](results/t.json)", "- b > a: **yes**, difference +45.0 ["):
        assert line in page
    assert "hash of runs/a-0" in page and told["command"] in page
    assert "| touch | 50% (1/2) [10, 90] | 20 steps a success |" in page and "| swap, words | 100% (3/3)" in page
    assert "udvla eval --task touch" in page and "`ffffffffffffffff`" in page and "p50 10 ms" in page
    assert capsys.readouterr().out.splitlines()[0] == "wrote docs/results.md"
    for target in ("t.png", "t.json", "plain.json"):
        assert (reports / "docs/results" / target).is_file()
    # The same reports give the same page.
    assert cli.main(["eval", "results", "table.json", "plain.json", "--out", "docs/results.md"]) == 0
    assert (reports / "docs/results.md").read_text() == page


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("table", lambda r: r["rows"][1]["success"]["touch"].update(successes=40), "row 'b', touch"),
        ("plain", lambda r: r["tasks"]["touch"].update(successes=2), "successes of touch"),
        ("table", lambda r: r.pop("rows"), "is no report of udvla eval table"),
        ("plain", lambda r: r.pop("tasks"), "is no report of udvla eval"),
    ],
)
def test_numbers_that_no_episode_backs_are_refused(reports, capsys, name, change, said):
    path = reports / f"{name}.json"
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))
    assert cli.main(["eval", "results", str(path), "--out", "docs/results.md"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line and name in line
    assert not (reports / "docs").exists()


def test_what_is_not_there_or_there_twice_is_one_line(reports, capsys):
    assert cli.main(["eval", "results", "nowhere.json"]) == 2
    assert "nowhere.json" in capsys.readouterr().err
    (reports / "again.json").write_text((reports / "table.json").read_text())
    assert cli.main(["eval", "results", "table.json", "again.json"]) == 2
    assert "two reports are called 't'" in capsys.readouterr().err
