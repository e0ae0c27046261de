"""Who of the open slots is committed in a step: functions of what was drawn."""

from __future__ import annotations

import torch
from torch import Tensor

from udvla_ros.decoding.base import Call
from udvla_ros.decoding.samplers import Drawn
from udvla_ros.decoding.sampling import gumbel

Chosen = tuple[Tensor, Tensor]  # bool [B, n] of images and action; of what was not drawn, nothing


def choose_apart(images: Drawn | None, codes: Drawn | None, call: Call) -> Chosen:
    """Choose the surest of each modality until its schedule's share of its slots stays masked.

    A threshold or an entropy bound adds what is sure enough by itself.
    """
    threshold, bound = call.options.confidence_threshold, call.options.entropy_bound

    def choose(drawn: Drawn | None) -> Tensor:
        if drawn is None:
            return torch.empty(0)
        chosen = most_confident(drawn.confidence, drawn.masked, (drawn.step.masked * drawn.count.double()).floor())
        if threshold is not None:
            chosen |= drawn.masked & (drawn.confidence >= threshold)
        if bound is not None and drawn.entropy is not None:
            chosen |= entropy_bounded(drawn.entropy, drawn.masked, bound)
        return chosen

    return choose(images), choose(codes)


def choose_jointly(images: Drawn | None, codes: Drawn | None, call: Call) -> Chosen:
    """Choose as the released code does: one ranking of both modalities by log-confidence plus Gumbel noise.

    The share that stays masked is one of all slots of the suffix, markers with them. Slots behind EOA do not count
    where they hold no token; the released code draws, ranks and counts them (``drawn_behind``).
    """
    there = [one for one in (images, codes) if one is not None]
    device, step = call.suffix.ids.device, there[0].step
    confidence = torch.cat([drawn.confidence.to(device) for drawn in there], 1)
    masked = torch.cat([drawn.masked.to(device) for drawn in there], 1)
    behind = (call.suffix.action if codes is None else codes.tokens).lt(0).sum(1).to(device)
    slots = call.forwards.end - (0 if call.foresight else call.forwards.boundary) - behind
    keep = joint_count(masked.sum(1), slots, step.masked)
    chosen = jointly(confidence, masked, keep, step.ranking_temperature, call.generator)
    count = 0 if images is None else images.masked.shape[1]
    return chosen[:, :count], chosen[:, count:].cpu()


def joint_count(unknown: Tensor, slots: Tensor, share: float) -> Tensor:
    """Return how many of ``unknown`` slots ``[B]`` stay masked after a step of the released code.

    That is ``share`` of all ``slots`` ``[B]``, but one at least, which the last step commits as well.
    """
    if share <= 0:
        return torch.zeros_like(unknown)
    return torch.minimum(unknown - 1, (slots.double() * share).floor().long()).clamp_min(1)


def jointly(
    confidence: Tensor, masked: Tensor, keep_masked: Tensor, ranking_temperature: float, generator: torch.Generator
) -> Tensor:
    """As :func:`most_confident` by log-confidence plus Gumbel noise.

    At noise of temperature 1 the first chosen is a draw in proportion to the confidences.
    """
    score = confidence.clamp_min(1e-9).log()
    if ranking_temperature > 0:
        score = score + ranking_temperature * gumbel(score.shape, generator, score.device)
    return most_confident(score, masked, keep_masked)


def most_confident(confidence: Tensor, masked: Tensor, keep_masked: Tensor) -> Tensor:
    """Choose the surest of the ``masked`` slots ``[B, N]`` until ``keep_masked`` ``[B]`` are left."""
    rank = _rank(confidence.masked_fill(~masked, -torch.inf), descending=True)
    return (rank < (masked.sum(1) - keep_masked)[:, None]) & masked


def least_confident(confidence: Tensor, committed: Tensor, share: float) -> Tensor:
    """Choose that share of the ``committed`` slots ``[B, N]``, rounded down, whose confidence is lowest."""
    rank = _rank(confidence.masked_fill(~committed, torch.inf), descending=False)
    return (rank < (committed.sum(1) * share).floor()[:, None]) & committed


def entropy_bounded(entropy: Tensor, masked: Tensor, bound: float) -> Tensor:
    """Choose as many of the surest masked slots as the bound allows, one at least (arXiv 2505.24857, EB-Sampler).

    Tokens that are drawn at once and each by itself err by at most the sum of their entropies less the largest one, in
    nats: slots are taken by rising entropy as long as that stays within ``bound``.
    """
    rising, order = entropy.masked_fill(~masked, torch.inf).sort(dim=1, stable=True)
    smaller = torch.cat([torch.zeros_like(rising[:, :1]), rising.cumsum(1)[:, :-1]], 1)
    return torch.zeros_like(masked).scatter_(1, order, smaller <= bound) & masked


def _rank(score: Tensor, descending: bool) -> Tensor:
    return score.argsort(dim=1, descending=descending, stable=True).argsort(dim=1, stable=True)
