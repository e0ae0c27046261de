"""The forward process: who may be hidden, how often, and what stays as it is."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from udvla_ros.training.corruption import Corrupted, corrupt, mask_ratio

LAYOUT = tiny.layout()
V, TEMPLATE = LAYOUT.vocabulary, LAYOUT.template
VISUAL, ACTION = torch.as_tensor(TEMPLATE.visual_slots), torch.as_tensor(TEMPLATE.action_slots)


def target(lengths=(3, 0, 13)) -> torch.Tensor:
    """Suffixes with that many action codes, then EOA."""
    codes = [[i % V.action_size for i in range(n)] for n in lengths]
    return torch.as_tensor(LAYOUT.suffix(tiny.image_codes(len(lengths)), codes))


def hide(ids: torch.Tensor, seed: int = 0, **options) -> Corrupted:
    return corrupt(ids, VISUAL, ACTION, V.mask, generator=torch.Generator().manual_seed(seed), **options)


lengths = st.lists(st.integers(0, tiny.ACTION_SLOTS - 1), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(lengths, st.integers(0, 9999), st.integers(1, 3), st.integers(0, 2), st.booleans())
def test_hidden_slots_are_mask_and_everything_else_is_untouched(lengths, seed, copies, blind, joint):
    ids = target(lengths)
    result = hide(ids, seed, copies=copies, blind=blind, joint=joint)
    expected = ids[:, None].repeat(1, copies, 1)
    expected[..., VISUAL] = expected[..., VISUAL].masked_fill(result.visual, V.mask)
    expected[..., ACTION] = expected[..., ACTION].masked_fill(result.action[:, :copies], V.mask)
    assert torch.equal(result.ids, expected)  # so BOI, EOI and BOA stand wherever they stood
    block = ids[:, None, ACTION].repeat(1, blind, 1).masked_fill(result.action[:, copies:], V.mask)
    assert torch.equal(result.action_ids[..., 1:], block)
    assert (result.action_ids[..., 0] == V.boa).all()
    assert result.action_ids.shape == (len(lengths), blind, 1 + tiny.ACTION_SLOTS)
    assert result.action.shape == (len(lengths), copies + blind, tiny.ACTION_SLOTS)


@settings(max_examples=60, deadline=None)
@given(lengths, st.integers(0, 9999))
def test_slots_behind_eoa_never_enter_the_loss(lengths, seed):
    result = hide(target(lengths), seed, copies=2, blind=1)
    for row, length in enumerate(lengths):
        assert not result.action[row, :, length + 1 :].any()


@settings(max_examples=60, deadline=None)
@given(lengths, st.integers(0, 9999))
def test_every_copy_hides_something_of_both_modalities(lengths, seed):
    result = hide(target(lengths), seed, copies=3, blind=2)
    assert result.visual.any(-1).all()
    assert result.action.any(-1).all()


def test_eoa_is_hidden_like_a_code():
    result = hide(target([4] * 200), copies=4)
    shares = result.action[..., :5].float().mean((0, 1))
    assert (shares - shares.mean()).abs().max() < 0.06


# -- the ratio ---------------------------------------------------------------------------------------


@given(st.floats(0, 1))
def test_ratio_formula(u):
    expected = max(0.1, math.cos(math.pi / 2 * u))
    assert float(mask_ratio(torch.tensor(u, dtype=torch.float64))) == pytest.approx(expected)


def long(batch: int, **options) -> Corrupted:
    """Corrupt sequences of 300 image and 300 action tokens: shares show their ratio."""
    ids = torch.zeros(batch, 602, dtype=torch.long)
    slots = torch.arange(1, 301), torch.arange(302, 602)
    generator = torch.Generator().manual_seed(0)
    return corrupt(ids, *slots, mask_id=9, generator=generator, **options)


@pytest.mark.parametrize("copies", [1, 2])
def test_shares_are_distributed_as_the_clamped_cosine(copies):
    shares = long(3000, copies=copies).visual.float().mean(-1).flatten().numpy()
    u = (np.arange(len(shares)) + 0.5) / len(shares)
    expected = np.sort(np.maximum(0.1, np.cos(np.pi / 2 * u)))
    # Quantile by quantile; the share of 300 coins wobbles by 0.03 at most around its ratio.
    assert np.abs(np.sort(shares) - expected).max() < 0.06
    assert shares.mean() == pytest.approx(expected.mean(), abs=0.012)


def correlation(result: Corrupted) -> float:
    visual = result.visual.float().mean(-1)[:, 0]
    action = result.action.float().mean(-1)[:, 0]
    return float(torch.corrcoef(torch.stack([visual, action]))[0, 1])


def test_joint_timestep_gives_both_modalities_one_ratio():
    result = long(400, joint=True)
    assert correlation(result) > 0.98
    shares = result.visual.float().mean(-1) - result.action.float().mean(-1)
    assert float(shares.abs().max()) < 0.2


def test_independent_ratios_are_independent():
    assert abs(correlation(long(1500))) < 0.08


def test_joint_copies_each_have_their_own_timestep():
    result = long(50, joint=True, copies=3, blind=2)
    visual, action = result.visual.float().mean(-1), result.action.float().mean(-1)
    assert float((visual - action[:, :3]).abs().max()) < 0.2
    assert float(visual.std(1).min()) > 0.02


def test_copies_of_one_prefix_cover_the_timesteps_evenly():
    u = torch.acos(long(300, copies=4).visual.float().mean(-1).clamp(max=1)) * 2 / math.pi
    strata = u.sort(1).values
    # One copy per quarter; the wobble of the coins blurs the borders.
    assert ((strata[:, 0] < 0.35) & (strata[:, 3] > 0.65)).all()
    order = u.argmin(1)
    assert torch.bincount(order, minlength=4).min() > 40  # and which copy it is does not matter


# -- stage (i) ---------------------------------------------------------------------------------------


@given(st.integers(0, 999))
@settings(max_examples=20, deadline=None)
def test_action_free_video_has_masked_action_slots_and_no_action_loss(seed):
    result = hide(target(), seed, copies=2, draw_actions=False)
    assert not result.action.any()
    assert (result.ids[..., ACTION] == V.mask).all()
    assert (result.ids[..., ACTION[0] - 1] == V.boa).all()
    assert result.visual.any(-1).all()


def test_video_without_any_action_needs_no_flag():
    ids = torch.as_tensor(LAYOUT.suffix(tiny.image_codes(2), None))
    result = hide(ids, blind=1)
    assert not result.action.any()
    assert (result.ids[..., ACTION] == V.mask).all()


# -- bookkeeping -------------------------------------------------------------------------------------


def test_seed_decides_and_the_target_is_left_alone():
    ids = target()
    before = ids.clone()
    first, second, other = hide(ids, 1, copies=2), hide(ids, 1, copies=2), hide(ids, 2, copies=2)
    assert torch.equal(ids, before)
    assert torch.equal(first.ids, second.ids)
    assert not torch.equal(first.ids, other.ids)


def test_share_takes_the_same_rows_of_every_part():
    whole = hide(target(), copies=2, blind=1)
    part = whole[1:3]
    for name in ("ids", "action_ids", "visual", "action"):
        assert torch.equal(getattr(part, name), getattr(whole, name)[1:3])
