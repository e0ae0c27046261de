"""The plan of a collection, and labels said afterwards."""

from __future__ import annotations

import numpy as np
import pytest
import synthetic_bag as synthetic

from udvla_ros.cli.main import main
from udvla_ros.errors import ConfigError
from udvla_ros.rollouts.bags.reader import Bag
from udvla_ros.rollouts.collecting import Collection


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
