"""Which rows of the head are computed, and that the released geometry is understood."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch

from udvla_ros.model.backbone import Backbone
from udvla_ros.tokens.layout import Layout, View, Vocabulary

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.mark.parametrize("action_step", [1, -1])
@torch.inference_mode()
def test_head_slices_equal_rows_of_the_whole_head(action_step):
    layout = tiny.layout()
    if action_step == -1:
        v = layout.vocabulary
        down = {**layout.to_dict()["vocabulary"], "action_step": -1, "action_first": v.visual_first - 1}
        layout = Layout(Vocabulary(**down), layout.views, layout.text_slots, layout.action_slots)
    model, v = tiny.backbone(layout=layout), layout.vocabulary
    hidden = torch.randn(2, 5, 32)
    whole = model.logits(hidden)
    visual = whole[..., [int(v.visual_ids([c])[0]) for c in range(v.visual_size)]]
    action = whole[..., [*(int(v.action_ids([c])[0]) for c in range(v.action_size)), v.eoa]]
    torch.testing.assert_close(model.visual_logits(hidden), visual, **TOLERANCE)
    torch.testing.assert_close(model.action_logits(hidden), action, **TOLERANCE)


# -- the released geometry ---------------------------------------------------------------------------


# What config.json of the released checkpoints says about the decoder.
RELEASED = {
    "attention_dropout": 0.1,
    "bos_token_id": 151849,
    "eos_token_id": 151850,
    "pad_token_id": 151643,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 14336,
    "max_position_embeddings": 5120,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": False,
    "use_cache": True,
    "vocab_size": 184622,
}


def published_layout() -> Layout:
    return Layout(Vocabulary.published(), (View("static", 16, 16, 2, 2, (16, 9, 17, 9, 17)),), 4, 5)


@torch.inference_mode()
def test_published_vocabulary_works_at_a_tiny_width():
    layout = published_layout()
    model = tiny.backbone(layout=layout, hidden_size=16, num_hidden_layers=1)
    assert model.decoder.head.shape == (184_622, 16)
    prefix = layout.prefix([[5, 6]], {"static": np.array([[0, 1, 2, 32767]])})
    ids, positions, modality = tiny.tensors(prefix)
    mask, where = model.sequence_mask(modality, positions)
    hidden = model.hidden(torch.cat([ids, model.suffix_ids[None]], 1), where, mask)
    visual = model.visual_logits(hidden[:, len(ids[0]) + model.visual_slots - 1])
    action = model.action_logits(hidden[:, len(ids[0]) + model.action_slots - 1])
    assert visual.shape == (1, 4, 32_768)
    assert action.shape == (1, 5, 1025)  # 1,024 codes and EOA
    weight = model.decoder.head
    last = hidden[0, len(ids[0]) + model.action_slots[0] - 1]
    torch.testing.assert_close(action[0, 0, 3], last @ weight[151642 - 3], **TOLERANCE)
    torch.testing.assert_close(action[0, 0, 1024], last @ weight[151845], **TOLERANCE)


def test_released_configuration_maps_when_only_its_size_is_shrunk():
    small = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 1}
    model = Backbone({**RELEASED, **small, **heads}, published_layout())
    shape, layer = model.shape, model.decoder.layers[0]
    assert shape.vocab_size == RELEASED["vocab_size"]
    assert (shape.rope_theta, shape.rms_norm_eps, shape.attention_dropout) == (1e6, 1e-5, 0.1)
    assert layer.qkv.weight.shape == (64 + 2 * 16, 64)
    assert layer.gate_up.weight.shape == (2 * 64, 64)
    assert model.dtype == torch.float32


def test_released_configuration_has_the_published_8b_parameters():
    model = Backbone(RELEASED, published_layout(), empty=True)
    count = sum(p.numel() for p in model.decoder.parameters())
    per_layer = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336 + 2 * 4096
    assert count == model.shape.parameters == 2 * 184_622 * 4096 + 32 * per_layer + 4096
