"""What the cache may leave out, and which rows of the head are computed."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch

from udvla_ros.model.backbone import Backbone, StaticCache
from udvla_ros.tokens.layout import Layout, View, Vocabulary

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def setting(kind: str, seed: int = 0):
    """A model, a prefix of two texts of different lengths, a filled-in suffix, the mask and positions."""
    model, layout = tiny.backbone(kind, seed), tiny.layout()
    prefix = tiny.tensors(tiny.prefix([[1, 2, 3], [4]], seed))
    suffix = torch.as_tensor(layout.suffix(tiny.image_codes(2, seed + 1), [[1, 2], [3, 4, 5]]))
    return model, prefix, suffix, model.sequence_mask(prefix[2], prefix[1])


def full_and_cached(kind: str, seed: int):
    model, (ids, positions, _), suffix, (mask, where) = setting(kind, seed)
    n = ids.shape[1]
    full = model.hidden(torch.cat([ids, suffix], 1), where, mask)[:, n:]
    cache = model.new_cache(2)
    model.hidden(ids, positions, mask[:, :, :n, :n], cache)
    cache.start = n
    cached = model.hidden(suffix, where[:, n:], mask[:, :, n:], cache)
    return full, cached


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["hybrid", "causal"])
@torch.inference_mode()
def test_cached_suffix_equals_the_full_forward(kind, seed):
    torch.testing.assert_close(*full_and_cached(kind, seed), **TOLERANCE)


@pytest.mark.parametrize("kind", ["merged", "bidirectional"])
@torch.inference_mode()
def test_cached_suffix_is_another_function_where_the_prefix_sees_it(kind):
    full, cached = full_and_cached(kind, 0)
    assert (full - cached).abs().max() > 1e-2


@pytest.mark.parametrize("kind", ["hybrid", "causal"])
@torch.inference_mode()
def test_suffix_can_be_overwritten_step_after_step(kind):
    model, (ids, positions, _), suffix, (mask, where) = setting(kind)
    n = ids.shape[1]
    cache = model.new_cache(2)
    model.hidden(ids, positions, mask[:, :, :n, :n], cache)
    for step in range(3):
        other = suffix.clone()
        other[:, model.visual_slots[step:]] = model.layout.vocabulary.mask
        cache.start = n
        cached = model.hidden(other, where[:, n:], mask[:, :, n:], cache)
        full = model.hidden(torch.cat([ids, other], 1), where, mask)[:, n:]
        torch.testing.assert_close(cached, full, **TOLERANCE)


@pytest.mark.parametrize("kind", ["hybrid", "causal"])
@torch.inference_mode()
def test_action_alone_behind_cached_images_equals_the_full_forward(kind):
    model, (ids, _, _), suffix, (mask, where) = setting(kind)
    split = ids.shape[1] + model.layout.template.action_start
    everything = torch.cat([ids, suffix], 1)
    cache = model.new_cache(2)
    model.hidden(everything[:, :split], where[:, :split], mask[:, :, :split, :split], cache)
    cache.start = split
    for _ in range(2):
        action = model.hidden(everything[:, split:], where[:, split:], mask[:, :, split:], cache)
    full = model.hidden(everything, where, mask)[:, split:]
    torch.testing.assert_close(action, full, **TOLERANCE)


@torch.inference_mode()
def test_batch_equals_its_rows_alone():
    model, (ids, _, _), suffix, (mask, where) = setting("hybrid")
    everything = torch.cat([ids, suffix], 1)
    both = model.hidden(everything, where, mask)
    for row in range(2):
        one = slice(row, row + 1)
        real = mask[row, 0].diagonal() & (ids[row, 0] >= 0)
        alone = model.hidden(everything[one], where[one], mask[one])
        torch.testing.assert_close(both[row][real], alone[0][real], **TOLERANCE)


def test_cache_holds_grouped_heads_and_the_whole_sequence():
    model = tiny.backbone()
    cache = model.new_cache(3)
    layout = tiny.layout()
    assert cache.batch == 3
    assert cache.buffer.shape == (2, 2, 3, 2, layout.prefix_length + layout.suffix_length, 8)
    assert isinstance(cache, StaticCache)


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
    whole = model.lm.lm_head(hidden)
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
    assert model.lm.lm_head.weight.shape == (184_622, 16)
    prefix = layout.prefix([[5, 6]], {"static": np.array([[0, 1, 2, 32767]])})
    ids, positions, modality = tiny.tensors(prefix)
    mask, where = model.sequence_mask(modality, positions)
    hidden = model.hidden(torch.cat([ids, model.suffix_ids[None]], 1), where, mask)
    visual = model.visual_logits(hidden[:, len(ids[0]) + model.visual_slots - 1])
    action = model.action_logits(hidden[:, len(ids[0]) + model.action_slots - 1])
    assert visual.shape == (1, 4, 32_768)
    assert action.shape == (1, 5, 1025)  # 1,024 codes and EOA
    weight = model.lm.lm_head.weight
    last = hidden[0, len(ids[0]) + model.action_slots[0] - 1]
    torch.testing.assert_close(action[0, 0, 3], last @ weight[151642 - 3], **TOLERANCE)
    torch.testing.assert_close(action[0, 0, 1024], last @ weight[151845], **TOLERANCE)


def test_released_configuration_maps_when_only_its_size_is_shrunk():
    small = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 1}
    model = Backbone({**RELEASED, **small, **heads}, published_layout())
    config = model.config
    assert config.vocab_size == RELEASED["vocab_size"]
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (151643, 151849, 151850)
    assert not config.tie_word_embeddings
    assert config.rope_parameters["rope_theta"] == 1e6
    assert config.rms_norm_eps == 1e-5
    attention = model.lm.model.layers[0].self_attn
    assert (attention.q_proj.weight.shape, attention.k_proj.weight.shape) == ((64, 64), (16, 64))
    assert attention.q_proj.bias is None
    assert model.dtype == torch.float32


def test_released_configuration_has_the_published_8b_parameters():
    with torch.device("meta"):
        model = Backbone(RELEASED, published_layout())
    count = sum(p.numel() for p in model.lm.parameters())
    per_layer = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336 + 2 * 4096
    assert count == 2 * 184_622 * 4096 + 32 * per_layer + 4096
