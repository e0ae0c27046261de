"""Fine-tuning from a bundle: every row of the vocabulary follows its meaning into another vocabulary."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tiny
import torch

from udvla_ros.errors import ConfigError
from udvla_ros.model import weights
from udvla_ros.model.backbone import Backbone
from udvla_ros.tokens.layout import Layout, Vocabulary
from udvla_ros.tokens.text import TextTokenizer
from udvla_ros.tokens.vision import VisionTokenizer
from udvla_ros.training.inherit import inherit, nearest_codes, same_meaning

TABLES = ("model.embed_tokens.weight", "lm_head.weight")


def descendant():
    """A bundle of other words (some shared) whose codebook is the parent's turned round."""
    parent = tiny.bundle(seed=1)
    text = TextTokenizer.train(["drop the red cube", "stop", "lift the green box"], size_limit=40, spare=5)
    vision = VisionTokenizer(tiny.vision.__wrapped__().model)
    table = vision.model.quantize.embedding.weight
    with torch.no_grad():
        table.copy_(table.flip(0).clone())
    vocabulary = Vocabulary.compact(text.vocab_size, tiny.VISUAL, tiny.fast().vocab_size)
    layout = Layout(vocabulary, tiny.VIEWS, tiny.TEXT_SLOTS + 2, tiny.ACTION_SLOTS)
    torch.manual_seed(7)
    child = dataclasses.replace(
        parent, config=dataclasses.replace(parent.config, layout=layout), text=text, vision=vision,
        backbone=Backbone(tiny.BACKBONE, layout, "hybrid").eval(),
    )  # fmt: skip
    child.check()
    return child, parent


def rows(bundle, name, ids):
    return dict(weights.named(bundle.backbone.decoder))[name][torch.as_tensor(ids)]


@pytest.mark.parametrize("table", TABLES)
def test_words_codes_and_markers_keep_their_rows(table):
    child, parent = descendant()
    fresh = {i: rows(child, table, [i]).clone() for i in range(child.text.vocab_size)}
    inherit(child, parent)
    new, old = child.config.layout.vocabulary, parent.config.layout.vocabulary
    for word in ("red", "stop", "green", "the"):
        assert torch.equal(rows(child, table, child.text.encode(word)), rows(parent, table, parent.text.encode(word)))
    for word in ("drop", "lift", "box"):
        (i,) = child.text.encode(word)
        assert torch.equal(rows(child, table, [i]), fresh[i]), f"'{word}' is new and was overwritten"
    visual = np.arange(tiny.VISUAL)
    mine = rows(child, table, new.visual_first + visual)
    assert torch.equal(mine, rows(parent, table, old.visual_first + visual[::-1].copy()))
    for name in ("bos", "mask", "boa", "eoa"):
        assert torch.equal(rows(child, table, [new.markers[name]]), rows(parent, table, [old.markers[name]]))
    codes = np.arange(new.action_size)
    assert torch.equal(rows(child, table, new.action_first + codes), rows(parent, table, old.action_first + codes))


def test_every_id_has_at_most_one_parent_and_layers_are_taken_whole():
    child, parent = descendant()
    ids = [i for i, _ in same_meaning(child, parent)]
    assert len(ids) == len(set(ids))
    assert inherit(child, parent) == child.config.layout.vocabulary.size - len(ids)
    theirs = dict(weights.named(parent.backbone.decoder))
    for name, value in weights.named(child.backbone.decoder):
        assert name in TABLES or torch.equal(value, theirs[name]), name


def test_a_code_goes_to_the_nearest():
    found = nearest_codes(torch.tensor([[0.9, 0.0], [0.0, 0.2]]), torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
    assert found.tolist() == [1, 0]


def test_another_size_is_refused():
    child, parent = descendant()
    small = tiny.BACKBONE | {"intermediate_size": 32}
    child.backbone = Backbone(small, child.config.layout, "hybrid")
    with pytest.raises(ConfigError, match="backbone section"):
        inherit(child, parent)
    child.backbone = Backbone(tiny.BACKBONE | {"num_hidden_layers": 1}, child.config.layout, "hybrid")
    with pytest.raises(ConfigError, match="layers"):
        inherit(child, parent)


def test_other_action_codes_are_refused():
    child, parent = descendant()
    child.normalizer = type(child.normalizer)([-0.02, -0.05, -1.0], [0.02, 0.05, 1.0])
    with pytest.raises(ConfigError, match="--actions BUNDLE/action"):
        inherit(child, parent)
