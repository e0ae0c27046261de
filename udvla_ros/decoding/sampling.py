"""Tokens and their probabilities from logits of one codebook."""

from __future__ import annotations

import torch
from torch import Tensor

from udvla_ros.model.products import logits

BLOCK = 1 << 22  # logits that exist at a time; a block that stays in the processor's cache is read there again
GROUP, MANY = 128, 4096  # codes of a codebook that are summed before one of them is drawn, and from how many on


def gumbel(shape: torch.Size, generator: torch.Generator, device: torch.device) -> Tensor:
    """Return standard Gumbel noise, drawn where the generator lives."""
    uniform = torch.rand(shape, generator=generator, device=generator.device).clamp_(1e-9, 1 - 1e-7)
    return uniform.log_().neg_().log_().neg_().to(device)


def sample(scores: Tensor, temperature: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw a token per row of float32 logits ``[n, N]``, which are overwritten.

    A draw at a temperature is what Gumbel-max gives (the softmax of ``logits / temperature``), taken from the
    cumulative sums instead: one random number per row in place of N.

    Returns:
        tokens ``[n]`` at ``temperature`` (0: the arg-max), and their probability at temperature 1, which is the
        confidence that decides who is committed first.
    """
    highest, best = scores.max(-1, keepdim=True)
    scores.sub_(highest)
    if temperature <= 0:
        return best[:, 0], scores.exp_().sum(-1).reciprocal_()
    if temperature == 1:
        weights = scores.exp_()
        tokens, total = _pick(weights, generator)
        return tokens[:, 0], (weights.gather(-1, tokens) / total)[:, 0]
    weights = scores.exp()
    tokens, _ = _pick(scores.div_(temperature).exp_(), generator)
    return tokens[:, 0], weights.gather(-1, tokens)[:, 0] / weights.sum(-1)


def entropy(scores: Tensor) -> Tensor:
    """Return the entropy in nats of the softmax of ``[..., N]`` logits."""
    log_probs = scores.log_softmax(-1)
    return -(log_probs.exp() * log_probs.clamp_min(-1e30)).sum(-1)


def sample_rows(
    states: Tensor, head: Tensor, temperature: float, generator: torch.Generator, with_entropy: bool = False
) -> tuple[Tensor, Tensor, Tensor | None]:
    """As :func:`sample`, of the logits ``states [B, n, H] @ head [N, H]``; they never exist all at once.

    The third value is the logits' :func:`entropy` ``[B, n]``, if asked for.
    """
    batch, count, width = states.shape
    flat = states.reshape(-1, width)
    rows = min(len(flat), max(1, BLOCK // len(head)))
    # One block of memory for all: fresh pages cost as much as a pass over them.
    place = flat.new_empty(rows, len(head), dtype=torch.float32)
    parts = []
    for block in flat.split(max(1, rows)):
        found = logits(block, head, place[: len(block)])
        unsure_of = [entropy(found)] if with_entropy else []  # before the draw, which overwrites the logits
        parts.append((*sample(found, temperature, generator), *unsure_of))
    tokens, confidence, *unsure = (torch.cat(part).view(batch, count) for part in zip(*parts, strict=True))
    return tokens, confidence, unsure[0] if unsure else None


def likely(states: Tensor, head: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the most probable codes of each row of ``states [B, n, H]`` under ``head [N, H]``, and what others have.

    Returns:
        codes ``[B, n, k]`` and their log-probabilities, ``k = min(count, N)``, and the log-probability ``[B, n]`` of
        each code that is not among them, taken as equal.
    """
    size = len(head)
    count = min(count, size)
    parts = []
    for block in states.reshape(-1, states.shape[-1]).split(max(1, BLOCK // size)):
        log_probs = logits(block, head).log_softmax(-1)
        found, codes = log_probs.topk(count, dim=-1)
        rest = (1.0 - found.exp().sum(-1)).clamp_min(1e-9).div(max(size - count, 1)).log()
        parts.append((codes, found, rest))
    codes, found, rest = (torch.cat(part).unflatten(0, states.shape[:2]) for part in zip(*parts, strict=True))
    return codes, found, rest


def _pick(weights: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw an index per row of positive ``weights`` ``[n, N]`` by them; return it and the row's sum, ``[n, 1]`` each.

    Of many, first a group and then one of the group: sums of groups are cheap where a running sum over all is not.
    """
    n, size = weights.shape
    uniform = torch.rand(n, 1, generator=generator, device=generator.device).to(weights.device)
    if size < MANY or size % GROUP:
        reached = weights.cumsum(-1)
        total = reached[:, -1:]
        return torch.searchsorted(reached, _short_of(uniform * total, total), right=True), total
    groups = weights.view(n, -1, GROUP)
    # What is left within the group is a small difference of large sums: in float32 its last digits would be chance.
    sums = groups.sum(-1).double()
    reached = sums.cumsum(-1)
    total = reached[:, -1:]
    aim = _short_of(uniform * total, total)
    chosen = torch.searchsorted(reached, aim, right=True)
    inside = groups.gather(1, chosen[:, :, None].expand(-1, -1, GROUP))[:, 0].double().cumsum(-1)
    rest = _short_of((aim - (reached - sums).gather(1, chosen)).clamp_min_(0), inside[:, -1:])
    return chosen * GROUP + torch.searchsorted(inside, rest, right=True), total.to(weights.dtype)


def _short_of(aim: Tensor, end: Tensor) -> Tensor:
    """Keep an aim below the end of a running sum, where rounding took it: what is hit then has a weight."""
    return torch.minimum(aim, torch.nextafter(end, torch.zeros_like(end)))
