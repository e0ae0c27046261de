"""``udvla bag`` as it is typed: what it prints, writes and exits with."""

from __future__ import annotations

import json

import cv2
import pytest
import synthetic_bag as synthetic

from udvla_ros.cli.main import main


@pytest.fixture
def bags(tmp_path):
    synthetic.episode(tmp_path / "bags" / "good", duration=4.0)
    broken = synthetic.episode(tmp_path / "bags" / "broken", duration=2.0)
    path = next(broken.glob("*.mcap"))
    path.write_bytes(path.read_bytes()[:-500])
    return tmp_path / "bags"


def result(tmp_path, *words):
    """Run a verb with --json and return (exit code, what it wrote)."""
    told = tmp_path / "told.json"
    code = main(["bag", *map(str, words), "--json", str(told)])
    return code, json.loads(told.read_text()) if told.exists() else None


def test_list(bags, tmp_path, capsys):
    code, lines = result(tmp_path, "list", bags)
    printed = capsys.readouterr().out
    assert code == 0 and "2 episodes" in printed and f"1 broken: udvla bag repair {bags}" in printed
    assert {line["state"] for line in lines} == {"whole", "broken"}
    assert [line["instruction"] for line in lines if line["state"] == "whole"] == ["touch the red cube"]


def test_info(bags, tmp_path, capsys):
    code, told = result(tmp_path, "info", bags / "good")
    assert code == 0 and told["labels"]["bundle_hash"] == "5c417"
    [camera] = [topic for topic in told["topics"] if topic["name"] == "/front/image_raw"]
    assert (camera["count"], camera["qos"]) == (48, ["best_effort, volatile, depth 1"])
    assert "/front/image_raw" in capsys.readouterr().out


def test_check_exits_with_1_when_one_is_bad(bags, tmp_path, capsys):
    code, told = result(tmp_path, "check", bags / "good")
    assert code == 0 and told["good"]
    code, told = result(tmp_path, "check", bags)
    assert code == 1 and not told["good"]
    assert "BAD" in capsys.readouterr().out


def test_repair_and_then_all_is_well(bags, tmp_path, capsys):
    code, reports = result(tmp_path, "repair", bags)
    printed = capsys.readouterr().out
    assert code == 0 and "the original is kept as" in printed and "was whole" in printed
    assert sorted(bool(report["kept"]) for report in reports) == [False, True]
    code, lines = result(tmp_path, "list", bags)
    assert [line["state"] for line in lines] == ["whole", "whole"]
    code, told = result(tmp_path, "check", bags)
    assert not [f for e in told["episodes"] for f in e["findings"] if f["kind"] in ("broken", "count", "qos")]


def test_report_draws_a_page(bags, tmp_path):
    code, told = result(tmp_path, "report", bags / "good", "--out", tmp_path / "pages")
    [page] = told["pages"]
    picture = cv2.imread(page)
    assert code == 0 and picture.shape == (1750, 1500, 3)
    # The bar of the pictures is on it, in what was seen, predicted and came.
    red = (picture[..., 2] > 200) & (picture[..., 1] < 60) & (picture[..., 0] < 60)
    assert [red[begin : begin + 150].sum() > 500 for begin in (100, 260, 430)] == [True, True, True]


def test_report_of_an_episode_without_policy_or_images(tmp_path):
    def unwanted(t, topic, message):
        return "image" in topic or topic.startswith("/policy")

    recording = synthetic.Recording(duration=2.0).fill().drop(unwanted)
    folder = synthetic.finished(recording, tmp_path / "bare")
    assert main(["bag", "report", str(folder), "--out", str(tmp_path / "pages")]) == 0
    assert (tmp_path / "pages" / "bare.png").stat().st_size > 10_000


def test_export(bags, tmp_path, capsys):
    code, told = result(tmp_path, "export", bags / "good", "--out", tmp_path / "out", "--size", "front=24x32")
    assert code == 0 and told["taken"] == [str(bags / "good")] and told["steps"] > 10
    capsys.readouterr()
    assert main(["data", "inspect", str(tmp_path / "out")]) == 0
    assert json.loads(capsys.readouterr().out)["cameras"] == {"front": [24, 32], "wrist": [32, 32]}
    assert main(["bag", "export", str(bags / "broken"), "--out", str(tmp_path / "none")]) == 2
    assert "udvla bag repair" in capsys.readouterr().err


def test_export_to_lerobot(bags, tmp_path):
    pytest.importorskip("pyarrow")
    code, told = result(tmp_path, "export", bags / "good", "--to", "lerobot", "--out", tmp_path / "out")
    assert code == 0 and (tmp_path / "out/meta/info.json").is_file() and told["format"] == "lerobot"


@pytest.mark.parametrize(
    "words, line",
    [
        (["list", "/nowhere"], "is not a folder"), (["check", "EMPTY"], "no bag at or below"),
        (["report", "BROKEN"], "udvla bag repair"), (["replay", "GOOD", "--bundle", "x"], "does not tell"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_one_line(bags, tmp_path, capsys, words, line):
    (tmp_path / "empty").mkdir()
    places = {"EMPTY": tmp_path / "empty", "BROKEN": bags / "broken", "GOOD": bags / "good"}
    assert main(["bag", *(str(places.get(word, word)) for word in words)]) == 2
    error = capsys.readouterr().err
    assert line in error and error.count("\n") == 1


@pytest.mark.parametrize("size", ["front", "front=24", "front=0x8", "front=axb"])
def test_a_size_that_is_none_is_wrong_usage(bags, tmp_path, size, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["bag", "export", str(bags), "--out", str(tmp_path / "out"), "--size", size])
    assert ended.value.code == 2
