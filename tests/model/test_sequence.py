"""Masks in the form that a forward wants: ranges of keys where that says all, else what is added to the scores."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from udvla_ros.model.sequence import Part, ranges
from udvla_ros.tokens.layout import Modality


def allowed_by(parts: tuple[Part, ...], rows: int, keys: int, sample: int = 0) -> np.ndarray:
    """The mask of one sample that the parts stand for; of grouped heads the first's."""
    found = np.zeros((rows, keys), bool)
    for part in parts:
        added = None if part.bias is None else part.bias[min(sample, len(part.bias) - 1), 0, :rows].numpy()
        found[part.rows, part.keys] = True if added is None else added == 0
    return found


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 5), st.integers(1, 6)), min_size=1, max_size=4))
def test_ranges_say_what_the_mask_says(groups):
    mask = np.concatenate([np.tile((np.arange(12) >= a) & (np.arange(12) < a + n), (r, 1)) for r, a, n in groups])
    parts = ranges(mask[None])
    kinds = 1 + int((mask[1:] != mask[:-1]).any(1).sum())
    assert (parts is None) == (kinds > 3)
    if parts is not None:
        assert (allowed_by(parts, *mask.shape) == mask).all()
    assert ranges(np.stack([mask, ~mask])) is None  # two samples that see different keys


def test_keys_with_a_gap_need_a_mask():
    assert ranges(np.array([[[True, False, True]]])) is None
    assert ranges(np.array([[[False, False, False]]])) is None


@pytest.mark.parametrize("kind", ["hybrid", "merged", "causal", "bidirectional"])
@pytest.mark.parametrize("texts", [[[1, 2]], [[1, 2], [3]]])
@pytest.mark.parametrize("foresight", [True, False])
def test_every_span_says_what_the_table_says(kind, texts, foresight):
    net, prefix = tiny.backbone(kind), tiny.prefix(texts)
    sequence = net.sequence(prefix.positions, prefix.modality, foresight)
    mask, where = net.sequence_mask(torch.as_tensor(prefix.modality), torch.as_tensor(prefix.positions))
    what = np.concatenate([prefix.modality, np.tile(tiny.layout().template.modality, (len(texts), 1))], 1)
    wanted = mask[:, 0].numpy().copy()
    if not foresight:
        wanted &= (what[:, None, :] != Modality.FUTURE) | (what[:, :, None] == Modality.FUTURE)
    n, boundary = prefix.ids.shape[1], net.layout.template.action_start
    end = n + net.layout.suffix_length
    cos, sin = net.decoder.rotations(where, torch.float32)
    for first, last in ((0, n), (tiny.TEXT_SLOTS, n), (n, end), (n, n + boundary), (n + boundary, end), (0, end)):
        span = sequence.span(first, last)
        for row in range(len(texts)):
            shown = allowed_by(span.parts, last - first, last, row)
            assert (shown == wanted[row, first:last, :last]).all()
        assert torch.equal(span.cos, cos[:, first:last])
        assert torch.equal(span.sin, sin[:, first:last])
        assert sequence.span(first, last) is span


def test_one_sentence_needs_no_mask_for_images_and_action():
    net, prefix = tiny.backbone("hybrid"), tiny.prefix([[1, 2]])
    sequence = net.sequence(prefix.positions, prefix.modality)
    n, end = prefix.ids.shape[1], prefix.ids.shape[1] + net.layout.suffix_length
    pads = int((prefix.modality == Modality.PAD).sum())
    parts = sequence.span(n, end).parts
    assert [p.bias for p in parts] == [None, None]
    assert [(p.keys.start, p.keys.stop) for p in parts] == [
        (pads, n + net.layout.template.action_start),
        (pads, end),
    ]
    assert [p.bias for p in sequence.span(tiny.TEXT_SLOTS, n).parts] == [None]


def test_a_sentence_is_prepared_once_and_few_are_kept():
    net = tiny.backbone()
    first = tiny.prefix([[1, 2]])
    kept = net.sequence(first.positions, first.modality)
    again = tiny.prefix([[3, 4]], 9)  # other words and images, the same length
    assert net.sequence(again.positions, again.modality) is kept
    assert net.sequence(again.positions, again.modality, False) is not kept
    for count in range(1, 40):
        other = tiny.prefix([[1]] * count)
        net.sequence(other.positions, other.modality)
    assert len(net._sequences) == 32
    assert net.sequence(first.positions, first.modality) is not kept
