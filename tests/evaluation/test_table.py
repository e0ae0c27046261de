"""Tables from stand-in outcomes: pairs, intervals, claims, text, picture, and going on after a kill."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from scipy.stats import binomtest
from staged_table import TASKS, Stage, first, identities, measured, result, spec, timings

from udvla_ros.decoding.interface import DecodeOptions
from udvla_ros.errors import ConfigError
from udvla_ros.evaluation.intervals import wilson
from udvla_ros.evaluation.store import Store
from udvla_ros.evaluation.tables import table, table_plot, table_run, table_spec, table_text
from udvla_ros.evaluation.tables.table_run import Identity, Protocol


def test_every_row_plays_the_same_scenes_with_the_same_sentences(tmp_path):
    runs, _ = measured(spec(), lambda *_: True, tmp_path)
    kept = [
        [(e["task"], e["seed"], e["instruction"], e["condition"]) for e in runs[row][seed][task]]
        for task in TASKS
        for row in "ab"
        for seed in (0, 1)
    ]
    assert kept[0] == kept[1] == kept[2] == kept[3] and kept[4] == kept[7]
    assert [key[1] for key in kept[0]] == list(range(1_000_000, 1_000_020))


def test_the_difference_is_over_pairs_of_scene_task_and_training_seed(tmp_path):
    # Both win 30 of 40 in each training seed: what differs is where. Unpaired counts would see nothing.
    def wins(row, seed, task, index):
        return (index + (5 if row == "b" else 0) + 3 * seed) % 20 < 15

    told = result(spec(), wins, tmp_path)
    found = told["rows"][1]["against"]["all"]
    direct = [
        (wins("a", seed, task, i), wins("b", seed, task, i)) for seed in (0, 1) for task in TASKS for i in range(20)
    ]
    assert found["pairs"] == 80
    assert found["only_first"] == direct.count((True, False)) == 20
    assert found["only_second"] == direct.count((False, True)) == 20 and found["difference"] == 0
    # Pairs are found by scene, not by place in the file.
    runs, _ = measured(spec(), wins, tmp_path)
    turned = {seed: {task: each[::-1] for task, each in run.items()} for seed, run in runs["b"].items()}
    assert table.paired(runs["a"], turned).as_dict() == found
    # Training seeds are not mixed up: a's first against b's second is another comparison.
    crossed = table.paired(runs["a"], {0: runs["b"][1], 1: runs["b"][0]})
    assert crossed.as_dict() != found


def test_the_test_is_the_exact_one_of_scipy(tmp_path):
    rng = np.random.default_rng(4)
    draws = {row: rng.random((2, 2, 20)) < rate for row, rate in (("a", 0.5), ("b", 0.75))}
    told = result(spec(), lambda row, seed, task, i: draws[row][seed][TASKS.index(task)][i], tmp_path)
    found = told["rows"][1]["against"]
    for task, chosen in (("all", [0, 1]), ("touch", [0]), ("pick", [1])):
        a, b = (draws[row][:, chosen].ravel() for row in "ab")
        lost, gained = int((a & ~b).sum()), int((b & ~a).sum())
        assert (found[task]["only_first"], found[task]["only_second"]) == (lost, gained)
        assert found[task]["p"] == pytest.approx(binomtest(lost, lost + gained).pvalue, abs=6e-5)
    for seed in (0, 1):
        part = told["rows"][1]["by_training_seed"][str(seed)]["all"]
        assert part["successes"] == draws["b"][seed].sum() and part["episodes"] == 40
        apart = found["by_training_seed"][str(seed)]
        assert apart["difference"] == pytest.approx((draws["b"][seed].sum() - draws["a"][seed].sum()) / 40)
    whole = told["rows"][1]["success"]["all"]
    assert whole["ci95"] == pytest.approx(wilson(int(draws["b"].sum()), 80), abs=1e-4)
    assert told["rows"][1]["won"]["1"]["pick"] == "".join("01"[bool(x)] for x in draws["b"][1][1])


def test_rows_of_other_scenes_are_no_pairs(tmp_path):
    runs, _ = measured(spec(), lambda *_: True, tmp_path)
    fewer = {seed: {task: each[:5] for task, each in run.items()} for seed, run in runs["b"].items()}
    with pytest.raises(ConfigError, match="only 20 of 80 episodes"):
        table.paired(runs["a"], fewer)
    assert table.paired(runs["a"], {7: runs["b"][0]}) is None, "no training seed in common"


def test_other_words_and_conditions_are_paired_by_scene(tmp_path):
    rows = [
        {"name": "plain", "bundle": "x"},
        {"name": "words", "bundle": "x", "held_out": True},
        {"name": "dark", "bundle": "x", "condition": "light"},
    ]
    made = table_spec.parse({"title": "T", "reference": "plain", "rows": rows}, "t", "t.yaml")
    runs, _ = measured(made, lambda row, seed, task, i: row == "plain" or i % 2, tmp_path)
    assert {e["instruction"] for e in runs["words"][0]["touch"]}.isdisjoint(
        e["instruction"] for e in runs["plain"][0]["touch"]
    )
    for name in ("words", "dark"):
        found = table.difference(made, runs, "plain", name)
        assert (found.count, found.first, found.second) == (40, 20, 0)
    with pytest.raises(ConfigError, match="share no episode"):  # unless the rows differ on purpose
        table.paired(runs["plain"], runs["dark"])


# -- going on --------------------------------------------------------------------------------------------


def test_a_run_that_was_killed_goes_on_with_the_task_it_was_in(tmp_path):
    made, wins = spec(), lambda row, seed, task, i: (i + seed) % 3
    found, stage = identities(made), Stage(wins)
    stage.killed_at = ("b", 0, "pick")
    with pytest.raises(KeyboardInterrupt):
        table_run.measure(made, TASKS, found, Protocol(20), Store(tmp_path / "kept"), player=stage)
    assert stage.played == [("a", 0, "touch"), ("a", 0, "pick"), ("a", 1, "touch"), ("a", 1, "pick"), ("b", 0, "touch")]
    again = Stage(wins)
    runs = table_run.measure(made, TASKS, found, Protocol(20), Store(tmp_path / "kept"), player=again)
    assert again.played == [("b", 0, "pick"), ("b", 1, "touch"), ("b", 1, "pick")]
    assert runs == table_run.measure(made, TASKS, found, Protocol(20), Store(tmp_path / "other"), player=Stage(wins))


def test_rows_of_one_way_share_their_episodes(tmp_path):
    rows = [{"name": name, "bundle": "runs/a-{seed}", "made_by": "make a-{seed}"} for name in ("a", "b")]
    made, stage = spec(rows=rows), Stage(lambda row, seed, task, i: i % 2)
    runs = table_run.measure(made, TASKS, identities(made), Protocol(4), Store(tmp_path / "kept"), player=stage)
    assert {row for row, *_ in stage.played} == {"a"} and runs["a"] == runs["b"]


@pytest.mark.parametrize("what", ["weights", "options", "scenes", "half a file"])
def test_what_is_of_another_measurement_is_measured_again(tmp_path, what):
    made = spec(("a",), seeds=[0])
    protocol, found = Protocol(6), identities(made)
    path = tmp_path / "kept"
    table_run.measure(made, TASKS, found, protocol, Store(path), player=Stage(lambda *_: True))
    one = found["a"][0]
    if what == "weights":
        found["a"][0] = Identity(one.folder, one.name, "other", one.options)
    elif what == "options":
        found["a"][0] = Identity(one.folder, one.name, one.hash, DecodeOptions(steps=3))
    elif what == "scenes":
        protocol = Protocol(6, seed=100)
    else:
        path.write_text(path.read_text()[:500])
    stage = Stage(lambda *_: False)
    runs = table_run.measure(made, TASKS, found, protocol, Store(path), player=stage)
    assert len(stage.played) == 2 and not any(e["success"] for each in runs["a"][0].values() for e in each)


def test_only_runs_what_was_asked_for_and_takes_the_others_from_disk(tmp_path):
    made = spec(("a", "b", "c"))
    measured(made, lambda *_: True, tmp_path, only=["a"])
    runs, _ = measured(made, lambda *_: False, tmp_path, only=["b"])
    assert set(runs) == {"a", "b"}
    assert all(e["success"] for e in runs["a"][0]["touch"]) and not any(e["success"] for e in runs["b"][0]["touch"])


def test_a_table_without_its_reference_says_so_and_compares_nothing(tmp_path):
    made = spec(("a", "b"), expect=["b > a", "touch of b >= 50%"])
    told = result(made, lambda *_: True, tmp_path, only=["b"])
    assert [row["name"] for row in told["rows"]] == ["b"] and told["rows"][0]["against"] is None
    assert "the reference row 'a' was not measured" in told["notes"][0]
    assert [claim["holds"] for claim in told["claims"]] == ["not measured", "yes"]
    text = table_text.page(told, "t.png")
    assert "points" not in text.split("![")[0] and "- no differences" in text


# -- claims ----------------------------------------------------------------------------------------------


def held(tmp_path, claim, wins, timing=None, episodes=100):
    told = result(spec(expect=[claim]), wins, tmp_path, timing, episodes)
    (answer,) = told["claims"]
    assert answer["claim"] == claim
    return answer


@pytest.mark.parametrize(
    ("claim", "share", "holds"),
    [
        ("a > b", (80, 60), "yes"),
        ("a > b", (60, 80), "no"),
        ("a > b", (80, 80), "undecided"),
        ("a > b", (61, 60), "undecided"),
        ("a > b on pick", (80, 60), "yes"),
        ("b >= a - 3 points", (90, 90), "yes"),
        ("b >= a - 3 points", (90, 60), "no"),
        ("b >= a - 3 points", (90, 87), "undecided"),
        ("touch of a >= 97%", (97, 0), "yes"),
        ("touch of a >= 97%", (96, 0), "no"),
        ("all of b >= 12.5%", (0, 13), "yes"),
        ("push of a >= 10%", (50, 50), "not measured"),
        ("steps of a <= 8", (0, 0), "yes"),
        ("steps of a <= 4", (0, 0), "no"),
    ],
)
def test_a_claim_is_answered_by_what_was_measured(tmp_path, claim, share, holds):
    assert held(tmp_path, claim, first(share))["holds"] == holds


def test_a_claim_tells_its_numbers(tmp_path):
    answer = held(tmp_path, "a > b", lambda row, seed, task, i: i < (70 + 10 * seed if row == "a" else 60))
    assert answer["difference"] == pytest.approx(0.15) and answer["pairs"] == 400
    assert (answer["only_first"], answer["only_second"]) == (0, 60), "the difference is a less b"
    assert answer["by_training_seed"] == {"0": 0.1, "1": 0.2} and answer["p"] < 1e-4
    (line,) = table_text.claims({"claims": [answer]})
    assert line.startswith("- a > b: **yes**, difference +15.0 [") and "p < 0.0001" in line
    assert "60 won by the first alone and 0 by the second alone; by training seed +10.0, +20.0" in line


@pytest.mark.parametrize(("times", "holds"), [(8, "yes"), (8.5, "no")])
def test_speed_is_the_ratio_of_one_run(tmp_path, times, holds):
    answer = held(tmp_path, f"tokens/s of b >= {times} x a", first((1, 1)), timings(a=100.0, b=810.0))
    assert answer["holds"] == holds and answer["ratio"] == 8.1
    assert held(tmp_path, "tokens/s of b >= 8 x a", first((1, 1)))["holds"] == "not measured"


@pytest.mark.parametrize(("times", "holds"), [(2, "yes"), (2.1, "no")])
def test_chunks_are_timed_whole(tmp_path, times, holds):
    told = timings(a=100.0, b=810.0)
    for name, chunk_ms in (("a", 50.0), ("b", 25.0)):
        told["rows"][name]["chunk_ms"]["p50"] = chunk_ms
    answer = held(tmp_path, f"chunks/s of b >= {times} x a", first((1, 1)), told)
    assert answer["holds"] == holds and answer["ratio"] == 2.0


# -- what people read ------------------------------------------------------------------------------------


def test_the_markdown_is_a_table_with_every_number_in_its_place(tmp_path):
    told = result(spec(), first((16, 19)), tmp_path, timings(a=100.0, b=2000.0))
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table_text.markdown(told).splitlines()]
    assert lines[0] == [
        "",
        "touch",
        "pick",
        "all tasks",
        "by training seed",
        "against a, points",
        "tokens/s",
        "chunk p50, ms",
        "p95, ms",
        "forwards",
    ]
    assert len({len(line) for line in lines}) == 1 and set("".join(lines[1])) == {"-", ":"}
    a, b = lines[2:]
    low, high = wilson(32, 40)
    assert a[1] == f"80% (32/40) [{100 * low:.3g}, {100 * high:.3g}]" and a[4] == "80, 80%" and a[5] == ""
    assert b[3].startswith("95% (76/80)") and b[5].startswith("+15.0 [") and b[5].endswith("p = 0.0005")
    assert a[6:] == ["100", "1000", "1200", "9"] and b[6:] == ["2,000", "50", "60", "9"]
    page = table_text.page(told, "t.png")
    assert "| `runs/b-1` | 1 | `hash of runs/b-1` | b |" in page
    assert "```\nmake a-0\nmake a-1\nmake b-0\nmake b-1\n```" in page and "```\nudvla eval table t.yaml\n```" in page
    assert "scenes 1000000 to 1000019" in page and "![T](t.png)" in page


def test_a_table_of_one_task_and_one_seed_without_times_has_no_empty_columns(tmp_path):
    made = spec(("a",), seeds=[0])
    runs, found = measured(made, lambda *_: True, tmp_path)
    told = table.summarise(made, ["touch"], found, runs, Protocol(20))
    head = table_text.markdown(told).splitlines()[0]
    assert head == "|  | touch |"


@pytest.mark.parametrize("swept", [False, True])
def test_the_picture_shows_the_rows(tmp_path, swept):
    if swept:
        made = spec(sweep={"steps": [1, 8, 72]}, reference="a-8")
        timing = timings(**{row.name: 5000.0 / row.point[1] for row in made.rows})
    else:
        made, timing = spec(), timings(a=100.0, b=2000.0)
    told = result(made, lambda row, seed, task, i: i < 12 + seed, tmp_path, timing)
    path = table_plot.draw(json.loads(json.dumps(told)), tmp_path / "t.png")
    picture = cv2.imread(str(path))
    assert picture.shape[1] > 1000 and picture.std() > 10
    without = table_plot.draw({**told, "rows": [{**row, "timing": None} for row in told["rows"]]}, tmp_path / "u.png")
    assert cv2.imread(str(without)).shape[1] < picture.shape[1], "no panel without times"
