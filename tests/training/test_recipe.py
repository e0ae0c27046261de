"""Training files: what they may hold, how one builds on another, and what a wrong one says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny

from udvla_ros.errors import ConfigError
from udvla_ros.resources import find
from udvla_ros.training.dataset import Sequences
from udvla_ros.training.policy import Recipe

FOLDER = Path(find("config/training"))


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_file_is_a_recipe(path):
    if path.stem.startswith("accelerate"):
        pytest.skip("accelerate's own file")
    recipe = Recipe.load(path)
    assert recipe.training.steps > 0


def test_ablations_differ_from_each_other_in_what_they_are_named_for_alone():
    hybrid = Recipe.load(FOLDER / "ablations/hybrid.yaml")
    causal = Recipe.load(FOLDER / "ablations/causal.yaml")
    assert (hybrid.attention, causal.attention) == ("hybrid", "causal")
    assert hybrid.training == causal.training
    assert Recipe.load(FOLDER / "ablations/autoregressive.yaml").training.objective == "next_token"


def test_settings_reach_any_section():
    recipe = Recipe.load(FOLDER / "nano.yaml", ["attention=causal", "training.omega=0.25", "decoding.steps=3"], seed=7)
    assert recipe.attention == "causal"
    assert recipe.decoding["steps"] == 3
    assert (recipe.training.omega, recipe.training.seed) == (0.25, 7)


@pytest.mark.parametrize("setting", ["attention", "training.omga=1", "nowhere.x=1", "x=1"])
def test_a_setting_that_names_nothing_is_refused(setting):
    with pytest.raises(ConfigError, match="--set"):
        Recipe.load(FOLDER / "nano.yaml", [setting])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("training.objective=magic", "objective"),
        ("training.foresight=past", "foresight"),
        ("training.foresight=none", "copies"),
    ],
)
def test_wrong_values_are_named(text, named):
    with pytest.raises(ConfigError, match=named):
        Recipe.load(FOLDER / "nano.yaml", [text])


def test_current_foresight_puts_the_present_image_in_the_future_slots():
    shard, layout, text = tiny.sequences().shard, tiny.layout(), tiny.text()
    future, current = (Sequences.assemble(shard, layout, text, foresight=kind) for kind in ("future", "current"))
    slots = layout.template.visual_slots
    codes = np.concatenate([shard.views[v.name][shard.current] for v in layout.views], 1)
    np.testing.assert_array_equal(current.suffix[:, slots] - layout.vocabulary.visual_first, codes)
    assert not np.array_equal(future.suffix[:, slots], current.suffix[:, slots])
    np.testing.assert_array_equal(future.prefix_ids, current.prefix_ids)
