"""The loss against a reference that runs every copy by itself and takes the whole head."""

from __future__ import annotations

import pytest
import tiny
import torch

from udvla_ros.tokens.layout import Modality
from udvla_ros.training.corruption import Corrupted, corrupt
from udvla_ros.training.objective import JD3PObjective

LAYOUT = tiny.layout()
V, TEMPLATE = LAYOUT.vocabulary, LAYOUT.template
TEXTS = [[1, 2, 3], [4], [5, 6]]


def case(copies: int = 2, blind: int = 0, stage: int = 2, seed: int = 0):
    """Prefix tensors, target and corruption of three samples."""
    codes = [[1, 2, 3], [], [i % V.action_size for i in range(13)]]
    target = torch.as_tensor(LAYOUT.suffix(tiny.image_codes(3, seed + 1), codes))
    corrupted = corrupt(
        target, torch.as_tensor(TEMPLATE.visual_slots), torch.as_tensor(TEMPLATE.action_slots), V.mask,
        copies=copies, blind=blind, generator=torch.Generator().manual_seed(seed), draw_actions=stage == 2,
    )  # fmt: skip
    return tiny.tensors(tiny.prefix(TEXTS, seed)), target, corrupted


def log_probability(net, ids, modality, where, kind, slot, token, allowed) -> torch.Tensor:
    """Log-probability of one token at one place, among the ids of its own codebook."""
    mask = torch.tensor(
        [
            [tiny.sees(kind, q, k, where[j] <= where[i]) for j, k in enumerate(modality)]
            for i, q in enumerate(modality)
        ]
    )[None, None]
    hidden = net.hidden(torch.tensor([ids]), torch.tensor([where]), mask)
    logits = net.logits(hidden)[0, slot - 1]
    return logits[token] - logits[allowed].logsumexp(0)


def reference(net, kind, prefix, target, corrupted) -> tuple[torch.Tensor, torch.Tensor, int, int]:
    """Summed negative log-likelihoods and counts, token by token."""
    visual_ids = list(range(V.visual_first, V.visual_first + V.visual_size))
    action_ids = [*range(V.action_first, V.action_first + V.action_size), V.eoa]
    sums, counts = [torch.zeros(()), torch.zeros(())], [0, 0]
    boundary = TEMPLATE.action_start
    for row in range(len(target)):
        ids, where, modality = (part[row].tolist() for part in prefix)
        n, after = len(ids), where[-1] + 1
        places = [after + i for i in range(len(TEMPLATE.ids))]
        for copy in range(corrupted.ids.shape[1]):
            sequence = ids + corrupted.ids[row, copy].tolist()
            kinds = modality + TEMPLATE.modality.tolist()
            for which, slots, flags, allowed in (
                (0, TEMPLATE.visual_slots, corrupted.visual[row, copy], visual_ids),
                (1, TEMPLATE.action_slots, corrupted.action[row, copy], action_ids),
            ):
                for slot, hidden in zip(slots.tolist(), flags.tolist(), strict=True):
                    if hidden:
                        token = int(target[row, slot])
                        assert sequence[n + slot] == V.mask
                        args = (sequence, kinds, where + places, kind, n + slot, token, allowed)
                        sums[which] = sums[which] - log_probability(net, *args)
                        counts[which] += 1
        for block in range(corrupted.action_ids.shape[1]):
            sequence = ids + corrupted.action_ids[row, block].tolist()
            kinds = modality + [int(Modality.ACTION)] * (1 + tiny.ACTION_SLOTS)
            flags = corrupted.action[row, corrupted.ids.shape[1] + block].tolist()
            for index, hidden in enumerate(flags):
                if hidden:
                    token = int(target[row, TEMPLATE.action_slots[index]])
                    args = (sequence, kinds, where + places[boundary:], kind, n + 1 + index, token, action_ids)
                    sums[1] = sums[1] - log_probability(net, *args)
                    counts[1] += 1
    return *sums, *counts


@pytest.mark.parametrize(
    ("kind", "copies", "blind"), [("hybrid", 1, 0), ("hybrid", 2, 2), ("causal", 2, 1), ("merged", 1, 0)]
)
@torch.inference_mode()
def test_loss_equals_the_slow_reference(kind, copies, blind):
    net = tiny.backbone(kind)
    prefix, target, corrupted = case(copies, blind)
    visual, action, visual_count, action_count = reference(net, kind, prefix, target, corrupted)
    losses = JD3PObjective(net, omega=0.3)(*prefix, target, corrupted)
    torch.testing.assert_close(losses.visual, visual / visual_count, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses.action, action / action_count, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses.total, 0.3 * losses.visual + losses.action)
    assert visual_count == int(corrupted.visual.sum())
    assert action_count == int(corrupted.action.sum())


def one_copy(corrupted: Corrupted, copy: int) -> Corrupted:
    """One suffix of the packed ones, without blind blocks."""
    part = slice(copy, copy + 1)
    return Corrupted(
        corrupted.ids[:, part], corrupted.action_ids[:, :0], corrupted.visual[:, part], corrupted.action[:, part]
    )


def gradients(net, losses: list[torch.Tensor]) -> list[torch.Tensor]:
    net.zero_grad()
    for loss in losses:
        loss.backward()
    return [p.grad.clone() for p in net.decoder.parameters()]


@pytest.mark.parametrize("kind", ["hybrid", "causal"])
def test_copies_behind_one_prefix_equal_separate_forwards_in_loss_and_gradient(kind):
    net = tiny.backbone(kind)
    objective = JD3PObjective(net)
    prefix, target, corrupted = case(copies=3)
    counts = int(corrupted.visual.sum()), int(corrupted.action.sum())
    packed = objective(*prefix, target, corrupted)
    alone = [objective(*prefix, target, one_copy(corrupted, k), *counts) for k in range(3)]
    torch.testing.assert_close(packed.total, sum(losses.total for losses in alone), rtol=1e-5, atol=1e-6)
    together = gradients(net, [packed.total])
    apart = gradients(net, [losses.total for losses in alone])
    scale = max(float(g.abs().max()) for g in apart)
    for a, b in zip(together, apart, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * scale)


def test_blind_blocks_send_no_gradient_into_the_future_images():
    net = tiny.backbone()
    prefix, target, corrupted = case(copies=1, blind=2)
    embedded = net.decoder.embedding
    shown = set(corrupted.ids[0, 0, TEMPLATE.visual_slots].tolist())
    only_future = sorted(shown - set(prefix[0][0].tolist()) - {V.mask})
    assert only_future
    first = [part[:1] for part in prefix]
    alone = corrupted[:1]
    blind_only = Corrupted(
        alone.ids, alone.action_ids, torch.zeros_like(alone.visual), alone.action.clone()
    )
    blind_only.action[:, 0] = False
    net.zero_grad()
    JD3PObjective(net)(*first, target[:1], blind_only).total.backward()
    assert float(embedded.grad[only_future].abs().max()) == 0
    net.zero_grad()
    JD3PObjective(net)(*first, target[:1], alone).total.backward()
    assert float(embedded.grad[only_future].abs().max()) > 0


def test_stage_one_has_no_action_loss_and_trains_the_images():
    net = tiny.backbone()
    prefix, target, corrupted = case(stage=1)
    losses = JD3PObjective(net, omega=0.5)(*prefix, target, corrupted)
    assert losses.action.item() == 0
    torch.testing.assert_close(losses.total, 0.5 * losses.visual)
    losses.total.backward()
    rows = net.decoder.head.grad
    assert float(rows[V.visual_first :].abs().max()) > 0
    assert float(rows[V.action_first : V.visual_first].abs().max()) == 0
    assert all(torch.isfinite(p.grad).all() for p in net.decoder.parameters())


def test_processes_that_share_a_batch_average_to_the_same_loss():
    net = tiny.backbone()
    objective = JD3PObjective(net)
    prefix, target, corrupted = case(copies=2, blind=1)
    whole = objective(*prefix, target, corrupted)
    counts = int(corrupted.visual.sum()) / 2, int(corrupted.action.sum()) / 2
    parts = []
    for rows in (slice(0, 1), slice(1, 3)):
        share = corrupted[rows]
        parts.append(objective(*(p[rows] for p in prefix), target[rows], share, *counts))
    mean = (parts[0].total + parts[1].total) / 2  # what data-parallel gradient averaging minimises
    torch.testing.assert_close(mean, whole.total, rtol=1e-5, atol=1e-6)


def test_what_is_not_hidden_does_not_matter_as_a_target():
    net = tiny.backbone()
    prefix, target, corrupted = case(copies=1)
    other = target.clone()
    keep = ~corrupted.visual[:, 0]
    codes = other[:, TEMPLATE.visual_slots]
    other[:, TEMPLATE.visual_slots] = torch.where(keep, V.visual_first, codes)
    objective = JD3PObjective(net)
    assert torch.equal(
        objective(*prefix, target, corrupted).total, objective(*prefix, other, corrupted).total
    )


def test_logits_in_pieces_give_the_same_loss_and_gradient():
    net = tiny.backbone(seed=3)
    prefix, target, corrupted = case(copies=2, blind=1)
    made = [JD3PObjective(net, chunk=size)(*prefix, target, corrupted) for size in (8192, 5)]
    torch.testing.assert_close(made[0].total, made[1].total)
    for one, other in zip(*(gradients(net, [loss.total]) for loss in made), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
