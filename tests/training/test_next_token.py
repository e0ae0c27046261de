"""The autoregressive baseline: clean sequences, each token predicted from those before it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from udvla_ros.decoding.interface import DecodeOptions
from udvla_ros.decoding.registry import make_decoder
from udvla_ros.errors import ConfigError
from udvla_ros.tokens.layout import Prefix
from udvla_ros.training.corruption import uncorrupted
from udvla_ros.training.loop import PolicyTrainer, PolicyTraining
from udvla_ros.training.objective import JD3PObjective

LAYOUT = tiny.layout()
V, TEMPLATE = LAYOUT.vocabulary, LAYOUT.template
VISUAL, ACTION = torch.as_tensor(TEMPLATE.visual_slots), torch.as_tensor(TEMPLATE.action_slots)
CONFIG = PolicyTraining(
    objective="next_token", steps=8, stage1_steps=2, batch=6, copies=1, blind_copies=1, warmup=2, lr=3e-3, ema=0.9,
    backbone=dict(tiny.BACKBONE),
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, tiny.ACTION_SLOTS - 1), min_size=1, max_size=4), st.integers(0, 2))
def test_nothing_is_hidden_and_every_known_token_counts(lengths, blind):
    codes = [[i % V.action_size for i in range(n)] for n in lengths]
    ids = torch.as_tensor(LAYOUT.suffix(tiny.image_codes(len(lengths)), codes))
    clean = uncorrupted(ids, VISUAL, ACTION, V.mask, copies=1, blind=blind)
    assert torch.equal(clean.ids[:, 0], ids)
    assert clean.visual.all()
    for row, length in enumerate(lengths):
        assert clean.action[row].sum() == (1 + blind) * (length + 1)  # the codes and EOA
    assert (clean.action_ids[..., 0] == V.boa).all()
    assert torch.equal(clean.action_ids[..., 1:], ids[:, None, ACTION].expand(-1, blind, -1))


def test_no_token_sees_its_own_answer():
    """Changing the last code changes no loss but its own and those behind it."""
    model = tiny.backbone(attention="causal")
    objective, data = JD3PObjective(model), tiny.sequences()
    parts = [torch.as_tensor(p[:1].astype(np.int64)) for p in (data.prefix_ids, data.prefix_positions)]
    parts.append(torch.as_tensor(data.prefix_modality[:1].astype(np.int64)))
    target = torch.as_tensor(data.suffix[:1].astype(np.int64))

    def states(ids: torch.Tensor) -> torch.Tensor:
        mask, positions = objective.backbone.sequence_mask(parts[2], parts[1])
        return objective.backbone.hidden(torch.cat([parts[0], ids], 1), positions, mask)[:, parts[0].shape[1] :]

    changed = target.clone()
    slot = int(VISUAL[-1])
    changed[0, slot] = V.visual_first + (changed[0, slot] - V.visual_first + 1) % V.visual_size
    before, after = states(target), states(changed)
    assert torch.equal(before[:, :slot], after[:, :slot])
    assert not torch.equal(before[:, slot:], after[:, slot:])


def test_training_teaches_the_autoregressive_decoder(tmp_path):
    torch.manual_seed(0)
    model = tiny.backbone(attention="causal", initializer_range=0.05).train()
    data = tiny.sequences(episodes=2, steps=3)
    config = dataclasses.replace(CONFIG, steps=90, stage1_steps=5, batch=8, lr=1e-2, warmup=5)
    run = PolicyTrainer(model, data, config, tmp_path)
    first = run.train_step().visual.item()
    for _ in range(89):
        losses = run.train_step()
    assert losses.visual.item() < 0.5 * first
    bundle = tiny.bundle("causal", model=model.eval())
    rows = data.train[:2]
    prefix = Prefix(*(p[rows].astype(np.int64) for p in (data.prefix_ids, data.prefix_positions, data.prefix_modality)))
    options = DecodeOptions(decoder="autoregressive")
    decoded = make_decoder("autoregressive", bundle)(prefix, options, 0)
    truth = data.suffix[rows][:, TEMPLATE.visual_slots] - V.visual_first
    assert (decoded.visual == truth).mean() > 0.6  # chance is 1 in 16


@pytest.mark.parametrize(
    ("changes", "attention", "named"),
    [({}, "hybrid", "causal"), ({}, "bidirectional", "causal")],
)
def test_attention_that_shows_the_answer_is_refused(tmp_path, changes, attention, named):
    config = dataclasses.replace(CONFIG, blind_copies=0, **changes)
    with pytest.raises(ConfigError, match=named):
        PolicyTrainer(tiny.backbone(attention=attention), tiny.sequences(), config, tmp_path)


def test_gradient_checkpointing_changes_no_gradient(tmp_path):
    curves = []
    for name, recompute in (("a", False), ("b", True)):
        model = tiny.backbone(attention="causal").train()
        run = PolicyTrainer(
            model, tiny.sequences(), dataclasses.replace(CONFIG, gradient_checkpointing=recompute), tmp_path / name
        )
        curves.append([run.train_step().action.item() for _ in range(5)])
    np.testing.assert_allclose(curves[0], curves[1], rtol=1e-4)
