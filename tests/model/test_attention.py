"""The attention tables entry by entry, and the packings that must not change a number."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch

from udvla_ros.errors import BundleError, ConfigError
from udvla_ros.model.attention import KINDS, attention_kind, attention_mask
from udvla_ros.tokens.layout import Layout, Modality

# PAD, two of text, two of current, two of future, three of action; rows look at columns.
SEQUENCE = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4]
POSITIONS = [0, 0, 1, 2, 3, 4, 5, 6, 7, 8]
EXPECTED = {
    "hybrid": """
        1000000000
        0100000000
        0110000000
        0111100000
        0111100000
        0111111000
        0111111000
        0111111111
        0111111111
        0111111111""",
    "merged": """
        1000000000
        0100000000
        0110000000
        0111111111
        0111111111
        0111111111
        0111111111
        0111111111
        0111111111
        0111111111""",
    "causal": """
        1000000000
        0100000000
        0110000000
        0111000000
        0111100000
        0111110000
        0111111000
        0111111100
        0111111110
        0111111111""",
    "bidirectional": """
        1000000000
        0111111111
        0111111111
        0111111111
        0111111111
        0111111111
        0111111111
        0111111111
        0111111111
        0111111111""",
}


def matrix(kind: str) -> list[list[int]]:
    return [[int(c) for c in line.strip()] for line in EXPECTED[kind].split()]


def mask_of(kind: str, modality=SEQUENCE, positions=POSITIONS, *groups) -> torch.Tensor:
    m, p = torch.tensor([modality]), torch.tensor([positions])
    return attention_mask(attention_kind(kind), m, m, p, p, *groups)


@pytest.mark.parametrize("kind", EXPECTED)
def test_table_entry_by_entry(kind):
    mask = mask_of(kind)
    assert mask.shape == (1, 1, 10, 10)
    assert mask[0, 0].int().tolist() == matrix(kind)


@pytest.mark.parametrize("kind", EXPECTED)
def test_the_tests_own_prose_agrees_with_the_matrices(kind):
    # tiny.sees is what longer sequences are compared with below.
    said = [
        [int(tiny.sees(kind, q, k, POSITIONS[j] <= POSITIONS[i])) for j, k in enumerate(SEQUENCE)]
        for i, q in enumerate(SEQUENCE)
    ]
    assert said == matrix(kind)


def test_every_kind_is_in_this_test():
    assert set(KINDS) == set(EXPECTED)


@pytest.mark.parametrize(
    ("kind", "prefix", "future"),
    [
        ("hybrid", True, True),
        ("causal", True, True),
        ("merged", False, False),
        ("bidirectional", False, False),
    ],
)
def test_what_a_cache_may_rely_on(kind, prefix, future):
    assert (attention_kind(kind).prefix_exact, attention_kind(kind).future_exact) == (prefix, future)


def test_unknown_kind_lists_the_known():
    with pytest.raises(BundleError, match=r"'diagonal'.*hybrid, merged"):
        attention_kind("diagonal")


def test_each_row_of_a_batch_has_its_own_padding():
    modality = torch.tensor([[0, 1, 1], [0, 0, 1]])
    positions = torch.tensor([[0, 0, 1], [0, 0, 0]])
    kind = attention_kind("hybrid")
    mask = attention_mask(kind, modality, modality, positions, positions)[:, 0].int().tolist()
    assert mask == [[[1, 0, 0], [0, 1, 0], [0, 1, 1]], [[1, 1, 0], [1, 1, 0], [0, 0, 1]]]


def test_a_group_sees_the_prefix_and_itself():
    group = torch.tensor([0, 0, 0, 0, 0, 1, 1, 2, 2, 2])
    mask = mask_of("hybrid", SEQUENCE, POSITIONS, group, group)[0, 0].int()
    assert mask[7:, 5:7].sum() == 0  # the action is of another suffix than these images
    assert mask[7:, :5].tolist() == [[0, 1, 1, 1, 1]] * 3
    assert mask[7:, 7:].tolist() == [[1, 1, 1]] * 3
    assert mask[5:7, 5:7].tolist() == [[1, 1]] * 2


# -- whole sequences ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EXPECTED)
def test_sequence_mask_is_the_table_over_prefix_and_suffix(kind):
    model = tiny.backbone(kind)
    prefix = tiny.prefix([[1, 2], [3]])
    mask, positions = model.sequence_mask(*(tiny.tensors(prefix)[i] for i in (2, 1)))
    suffix = tiny.layout().template.modality
    for row in range(2):
        modality = [*prefix.modality[row].tolist(), *suffix.tolist()]
        last = int(prefix.positions[row, -1])
        where = [*prefix.positions[row].tolist(), *range(last + 1, last + 1 + len(suffix))]
        assert positions[row].tolist() == where
        expected = [
            [tiny.sees(kind, q, k, where[j] <= where[i]) for j, k in enumerate(modality)]
            for i, q in enumerate(modality)
        ]
        assert mask[row, 0].tolist() == expected


def random_suffixes(batch: int, count: int, seed: int = 0) -> torch.Tensor:
    """Ids ``[batch, count, S]`` with real tokens and MASK mixed."""
    layout = tiny.layout()
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        codes = [rng.integers(0, layout.vocabulary.action_size, 5).tolist() for _ in range(batch)]
        ids = layout.suffix(tiny.image_codes(batch, seed + 10 + i), codes)
        free = np.concatenate([layout.template.visual_slots, layout.template.action_slots])
        hide = rng.random((batch, len(free))) < 0.5
        ids[:, free] = np.where(hide, layout.vocabulary.mask, ids[:, free])
        rows.append(ids)
    return torch.as_tensor(np.stack(rows, 1))


@pytest.mark.parametrize("kind", ["hybrid", "causal"])
@torch.inference_mode()
def test_packed_suffixes_equal_each_suffix_alone(kind):
    model = tiny.backbone(kind)
    ids, positions, modality = tiny.tensors(tiny.prefix([[1, 2, 3], [4]]))
    suffixes = random_suffixes(2, 3)
    mask, where = model.sequence_mask(modality, positions, 3)
    packed = model.hidden(torch.cat([ids, suffixes.flatten(1)], 1), where, mask)
    alone_mask, alone_where = model.sequence_mask(modality, positions)
    n, size = ids.shape[1], suffixes.shape[2]
    for i in range(3):
        alone = model.hidden(torch.cat([ids, suffixes[:, i]], 1), alone_where, alone_mask)
        span = slice(n + i * size, n + (i + 1) * size)
        torch.testing.assert_close(packed[:, span], alone[:, n:], rtol=1e-5, atol=1e-5)
        if i == 0:
            real = modality != Modality.PAD
            torch.testing.assert_close(packed[:, :n][real], alone[:, :n][real], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["hybrid", "causal"])
@torch.inference_mode()
def test_blind_action_blocks_equal_an_action_behind_no_future_at_all(kind):
    model, layout = tiny.backbone(kind), tiny.layout()
    ids, positions, modality = tiny.tensors(tiny.prefix([[1, 2, 3], [4]]))
    suffixes = random_suffixes(2, 3)
    start = layout.template.action_start
    blocks = suffixes[:, 1:, start:]
    mask, where = model.sequence_mask(modality, positions, 1, 2)
    packed = model.hidden(torch.cat([ids, suffixes[:, 0], blocks.flatten(1)], 1), where, mask)

    size, length = blocks.shape[2], ids.shape[1]
    kinds = [[*row.tolist(), *[int(Modality.ACTION)] * size] for row in modality]
    far = torch.cat([positions, positions[:, -1:] + 1 + start + torch.arange(size)], 1)
    hand_mask = torch.tensor(
        [
            [
                [tiny.sees(kind, q, k, bool(far[row, j] <= far[row, i])) for j, k in enumerate(kinds[row])]
                for i, q in enumerate(kinds[row])
            ]
            for row in range(2)
        ]
    )[:, None]
    for i in range(2):
        alone = model.hidden(torch.cat([ids, blocks[:, i]], 1), far, hand_mask)[:, length:]
        begin = length + layout.suffix_length + i * size
        torch.testing.assert_close(packed[:, begin : begin + size], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["merged", "bidirectional"])
def test_kinds_whose_prefix_sees_the_suffix_refuse_to_share_it(kind):
    model = tiny.backbone(kind)
    _, positions, modality = tiny.tensors(tiny.prefix([[1]]))
    for counts in ((2, 0), (1, 1)):
        with pytest.raises(ConfigError, match="copies 1 and blind_copies 0"):
            model.sequence_mask(modality, positions, *counts)


@pytest.mark.parametrize("kind", EXPECTED)
@torch.inference_mode()
def test_left_padding_changes_nothing(kind):
    vocabulary = tiny.layout().vocabulary
    tight = Layout(vocabulary, tiny.VIEWS, 4, tiny.ACTION_SLOTS)
    model = tiny.backbone(kind)
    same = tiny.backbone(kind, layout=tight)
    same.load_state_dict(model.state_dict())
    suffix = random_suffixes(1, 1)[:, 0]
    states = []
    for m in (model, same):
        ids, positions, modality = tiny.tensors(tiny.prefix([[5, 6, 7]], layout=m.layout))
        mask, where = m.sequence_mask(modality, positions)
        hidden = m.hidden(torch.cat([ids, suffix], 1), where, mask)
        states.append(hidden[:, m.layout.text_slots - 4 :])
    assert torch.isfinite(states[0]).all()
    torch.testing.assert_close(m.logits(states[0]), m.logits(states[1]), rtol=1e-5, atol=1e-5)
