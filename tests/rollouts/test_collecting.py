"""The plan of a collection, labels said afterwards, data sets put together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import synthetic_bag as synthetic
from made_episodes import make

from udvla_ros.cli.main import main
from udvla_ros.errors import ConfigError
from udvla_ros.rollouts import episodes as disk
from udvla_ros.rollouts.bags.reader import Bag
from udvla_ros.rollouts.collecting import Collection
from udvla_ros.rollouts.merge import merge


def test_a_collection_counts_takes_back_and_covers(tmp_path):
    plan = Collection(["fold it", "fold the cloth"], 3)
    for k, outcome in enumerate(("success", "failure", "success", "success")):
        folder = tmp_path / "bags" / f"e{k}"
        folder.mkdir(parents=True)
        line = plan.add(folder, plan.sentence(), outcome, np.array([0.4, 0.1 * (k > 1), 0.2]))
    assert plan.done and "started 0 mm" in line
    assert "'fold it' 2" in plan.covered() and "0 x 100 x 0 mm" in plan.covered()
    assert "took back e3" in plan.undo() and not plan.done
    assert (tmp_path / "bags-undone" / "e3").is_dir(), "where no export of the bags finds it"
    assert not (tmp_path / "bags" / "e3").exists()
    assert plan.sentence() == "fold it" or plan.sentence() == "fold the cloth"
    for _ in range(3):
        plan.undo()
    with pytest.raises(ConfigError, match="no episode to take back"):
        plan.undo()


def test_a_collection_needs_words_and_a_count():
    with pytest.raises(ConfigError, match="needs a sentence"):
        Collection(["  "], 3)
    with pytest.raises(ConfigError, match="at least 1"):
        Collection(["go"], 0)


def test_labels_said_afterwards(tmp_path, capsys):
    folder = synthetic.episode(tmp_path / "one", labels={**synthetic.LABELS, "outcome": "failure"}, duration=3.0)
    before = [path.read_bytes() for path in folder.glob("*.mcap")]
    assert main(["bag", "label", str(folder), "--outcome", "success", "--instruction", "press it"]) == 0
    assert "outcome was 'failure'" in capsys.readouterr().out
    with Bag(folder) as bag:
        assert (bag.labels["outcome"], bag.labels["instruction"]) == ("success", "press it")
        assert bag.labels["labelled_by"] == "operator, afterwards" and bag.labels["robot"] == "ur5e_sim"
    assert [path.read_bytes() for path in folder.glob("*.mcap")] == before, "the recording stays as it is"
    assert main(["bag", "label", str(folder)]) == 2
    assert "nothing to label" in capsys.readouterr().err


def data_set(folder, count, **changes):
    disk.write_shard(folder / "shard-00000.npz", [make(3, seed) for seed in range(count)])
    told = {
        "format": disk.FORMAT, "version": disk.VERSION, "episodes": count, "frames": 4 * count, "actions": 3 * count,
        "shards": 1, "control_hz": 10.0, "cameras": {"gripper": [6, 8], "side": [4, 4]},
        "episodes_per_task": {"touch": count}, "action": {"space": "tcp_delta", "joints": ["a"]}, **changes,
    }  # fmt: skip
    import json

    (folder / disk.DESCRIPTION).write_text(json.dumps(told))
    return folder


def test_data_sets_become_one_and_grow(tmp_path):
    a, b, c = (data_set(tmp_path / name, count) for name, count in (("a", 2), ("b", 3), ("c", 1)))
    told = merge([a, b], tmp_path / "all")
    assert (told["episodes"], told["frames"], told["shards"]) == (5, 20, 2)
    assert main(["data", "merge", str(c), "--out", str(tmp_path / "all")]) == 0
    told = disk.read_description(tmp_path / "all")
    assert told["episodes_per_task"] == {"touch": 6} and told["shards"] == 3
    assert len(list(disk.read_episodes(tmp_path / "all"))) == 6


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cameras": {"side": [4, 4]}}, "has cameras"), ({"control_hz": 5.0}, "control_hz"),
        ({"action": {"space": "joint_delta", "joints": ["a"]}}, "space tcp_delta and joint_delta"),
    ],
)  # fmt: skip
def test_what_means_something_else_is_not_put_together(tmp_path, changes, said):
    a, b = data_set(tmp_path / "a", 1), data_set(tmp_path / "b", 1, **changes)
    with pytest.raises(disk.DatasetError, match=said):
        merge([a, b], tmp_path / "all")


def test_learnable_leaves_out_what_nobody_did():
    episode = replace(make(5), intervention=np.array([0, 3, 2, 1, 3], np.uint8))
    assert episode.learnable.tolist() == [0, 2, 3]
    assert replace(episode, labelled=3).learnable.tolist() == [0, 2]
