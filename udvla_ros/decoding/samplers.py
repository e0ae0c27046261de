"""What is drawn in one denoising step: functions of their arguments.

Action codes have known expanded lengths, so that a sequence is drawn as a whole, among those that fill the chunk
exactly and keep what is committed (:mod:`udvla_ros.tokens.action_lattice`). Two laws draw it:

* :func:`exact` is the model's own: p(sequence) in proportion to the product of its codes' probabilities.
* :func:`perturbed` is perturb-and-MAP: Gumbel noise on each code, then the best sequence. On one slot this is the
  softmax; on sequences it is not, and the number of codes leans on the temperature.

Confidences are the model's probabilities at temperature 1, whatever the draw's.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from udvla_ros.decoding.base import OPEN
from udvla_ros.decoding.sampling import entropy, gumbel, sample, sample_rows
from udvla_ros.decoding.schedule import Step
from udvla_ros.model.backbone import Backbone
from udvla_ros.tokens.action_lattice import Lattice


class Drawn(NamedTuple):
    """Tokens drawn for one modality; ``[B, n]`` each but for ``count``."""

    tokens: Tensor
    confidence: Tensor
    masked: Tensor  # bool: the slots that may be committed
    entropy: Tensor | None  # nats, if asked for
    count: Tensor  # [B] slots of the modality, committed ones with them
    step: Step


def draw_images(
    states: Tensor, head: Tensor, masked: Tensor, slots: int, step: Step, generator: torch.Generator, entropies: bool
) -> Drawn:
    """Draw an image token per state ``[B, n, H]`` from the codebook's rows of the head; ``slots`` are there in all."""
    tokens, confidence, unsure = sample_rows(states, head, step.token_temperature, generator, entropies)
    return Drawn(tokens, confidence, masked, unsure, torch.full_like(masked[:, 0], slots, dtype=torch.long), step)


def with_frames(images: Drawn, states: Tensor, model: Backbone, masked: Tensor) -> Drawn:
    """Return the images' draws with size headers, IMG and EOF behind them; their ids are known, and not drawn.

    How sure the model is of one, among the codes and all of them, says with what else it is committed.

    Args:
        images: of the open image slots.
        states: ``[B, F, H]`` in front of them.
        model: whose head it is.
        masked: ``[B, F]`` which of them are MASK.
    """
    ids, which = model.suffix_ids[model.frame_slots].unique(return_inverse=True)
    logits = torch.cat([model.logits(states, model.decoder.head[ids]), model.visual_logits(states)], -1)
    where = which.expand(masked.shape)
    confidence = logits.softmax(-1).gather(-1, where[..., None])[..., 0]
    return images._replace(
        tokens=torch.cat([images.tokens, where], 1),
        confidence=torch.cat([images.confidence, confidence], 1),
        masked=torch.cat([images.masked, masked], 1),
    )


def draw_action(
    logits: Tensor,
    committed: Tensor,
    lattice: Lattice,
    step: Step,
    generator: torch.Generator,
    entropies: bool,
    behind: bool = False,
) -> Drawn:
    """Draw an action sequence per sample, on the host; OPEN behind its EOA.

    Args:
        logits: ``[B, A, codes + 1]`` float32, EOA last.
        committed: ``[B, A]`` on the host: codes that stay, OPEN elsewhere.
        lattice: of the well-formed sequences.
        step: temperature and law.
        generator: of the draws.
        entropies: whether to tell those of the slots.
        behind: whether slots behind EOA are drawn too, each by itself, as the released code does. What is committed
            there binds the sequence only if it comes to reach so far.

    Raises:
        TokenError: no sequence of the given slots fills the chunk.
    """
    log_probs = logits.log_softmax(-1)
    law = exact if step.exact else perturbed
    tokens = torch.full_like(committed, OPEN)
    if behind:
        alone = sample(log_probs.flatten(0, 1).clone(), step.token_temperature, generator)[0].view(tokens.shape).cpu()
        tokens = torch.where(committed == OPEN, alone, committed)
    found = law(log_probs, committed.numpy(), lattice, step.token_temperature, generator, behind)
    for row, codes in enumerate(found):
        tokens[row, : len(codes) + 1] = torch.tensor([*codes, lattice.vocabulary])
    log_probs = log_probs.cpu()
    confidence = log_probs.gather(-1, tokens.clamp_min(0)[..., None])[..., 0].exp()
    inside = tokens != OPEN
    unsure = entropy(log_probs) if entropies else None
    return Drawn(tokens, confidence, inside & (committed == OPEN), unsure, inside.sum(1), step)


def exact(
    log_probs: Tensor,
    committed: np.ndarray,
    lattice: Lattice,
    temperature: float,
    generator: torch.Generator,
    passable: bool = False,
) -> list[list[int]]:
    """Draw from the model's distribution at ``temperature`` over well-formed sequences that keep what is committed."""
    if temperature <= 0:
        return perturbed(log_probs, committed, lattice, 0.0, generator, passable)
    shape = (len(committed), 2, lattice.slots)
    uniform = torch.rand(shape, generator=generator, device=generator.device).cpu().numpy()
    scores = (log_probs / temperature).cpu().numpy()
    return [lattice.draw(*row, passable) for row in zip(scores, uniform, committed, strict=True)]


def perturbed(
    log_probs: Tensor,
    committed: np.ndarray,
    lattice: Lattice,
    temperature: float,
    generator: torch.Generator,
    passable: bool = False,
) -> list[list[int]]:
    """Return the best sequences under Gumbel noise of that temperature on every code; at 0 the most probable ones."""
    if temperature > 0:
        log_probs = gumbel(log_probs.shape, generator, log_probs.device).mul_(temperature).add_(log_probs)
    return [lattice.best(*row, passable) for row in zip(log_probs.cpu().numpy(), committed, strict=True)]
