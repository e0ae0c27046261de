"""Tokens and confidences from logits: draws from one codebook, and the most confident first."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 1 << 22  # logits that exist at a time; a block that stays in the processor's cache is read there again


def gumbel(shape: torch.Size, generator: torch.Generator, device: torch.device) -> Tensor:
    """Return standard Gumbel noise, drawn where the generator lives."""
    uniform = torch.rand(shape, generator=generator, device=generator.device).clamp_(1e-9, 1 - 1e-7)
    return uniform.log_().neg_().log_().neg_().to(device)


def sample(logits: Tensor, temperature: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw a token per row of ``[..., N]`` logits.

    A draw at a temperature is what Gumbel-max gives (the softmax of ``logits / temperature``), taken from the
    cumulative sums instead: one random number per row in place of N.

    Returns:
        tokens ``[...]`` at ``temperature`` (0: the arg-max), and their probability at temperature 1, which is the
        confidence that decides who is committed first.
    """
    logits = logits.float()
    highest, best = logits.max(-1, keepdim=True)
    weights = (logits - highest).exp_()
    total = weights.sum(-1, keepdim=True)
    if temperature <= 0:
        return best[..., 0], total.reciprocal()[..., 0]
    heated = weights if temperature == 1 else ((logits - highest) / temperature).exp_()
    sums = heated.cumsum(-1)
    uniform = torch.rand(total.shape, generator=generator, device=generator.device).to(logits.device)
    tokens = torch.searchsorted(sums, uniform * sums[..., -1:], right=True).clamp_max_(logits.shape[-1] - 1)
    return tokens[..., 0], (weights.gather(-1, tokens) / total)[..., 0]


def sample_rows(
    states: Tensor, head: Tensor, temperature: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """As :func:`sample`, of the logits ``states [B, n, H] @ head [N, H]``; they never exist all at once."""
    batch, count, width = states.shape
    flat = states.reshape(-1, width)
    rows = max(1, BLOCK // len(head))
    if len(flat) <= rows:
        tokens, confidence = sample(flat @ head.t(), temperature, generator)
    else:
        parts = [sample(block @ head.t(), temperature, generator) for block in flat.split(rows)]
        tokens, confidence = (torch.cat(part) for part in zip(*parts, strict=True))
    return tokens.view(batch, count), confidence.view(batch, count)


def most_confident(confidence: Tensor, masked: Tensor, keep_masked: Tensor, threshold: float | None) -> Tensor:
    """Choose which masked slots to commit.

    Args:
        confidence: ``[B, N]``.
        masked: ``[B, N]`` bool, the slots still open.
        keep_masked: ``[B]`` how many of them may stay open.
        threshold: slots at least this confident are committed in any case.

    Returns:
        ``[B, N]`` bool, a subset of ``masked``.
    """
    score = confidence.masked_fill(~masked, -1.0)
    rank = score.argsort(dim=1, descending=True, stable=True).argsort(dim=1, stable=True)
    count = (masked.sum(1) - keep_masked).clamp_min(0)
    chosen = rank < count[:, None]
    if threshold is not None:
        chosen |= score >= threshold
    return chosen & masked


def least_confident(confidence: Tensor, committed: Tensor, share: float) -> Tensor:
    """Choose that share of the committed slots ``[B, N]``, rounded down, whose confidence is lowest."""
    score = confidence.masked_fill(~committed, float("inf"))
    rank = score.argsort(dim=1, stable=True).argsort(dim=1, stable=True)
    return (rank < (committed.sum(1) * share).floor()[:, None]) & committed
