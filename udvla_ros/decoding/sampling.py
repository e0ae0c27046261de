"""Tokens and confidences from logits: Gumbel-max over one codebook, and the most confident first."""

from __future__ import annotations

import torch
from torch import Tensor


def gumbel(shape: torch.Size, generator: torch.Generator, device: torch.device) -> Tensor:
    """Return standard Gumbel noise, drawn on the CPU so that a seed means the same on every device."""
    uniform = torch.rand(shape, generator=generator).clamp_(1e-9, 1 - 1e-7)
    return (-(-uniform.log()).log()).to(device)


def sample(logits: Tensor, temperature: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw a token per row of ``[..., N]`` logits.

    Returns:
        tokens ``[...]`` by Gumbel-max at ``temperature`` (0: the arg-max), and their probability at
        temperature 1, which is the confidence that decides who is committed first.
    """
    logits = logits.float()
    noisy = logits
    if temperature > 0:
        noisy = logits + temperature * gumbel(logits.shape, generator, logits.device)
    tokens = noisy.argmax(-1)
    confidence = (logits.gather(-1, tokens[..., None])[..., 0] - logits.logsumexp(-1)).exp()
    return tokens, confidence


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
