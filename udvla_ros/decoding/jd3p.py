"""JD3P: joint discrete denoising of future images and actions (arXiv 2511.01718, section 3.3).

The loop: prefix once into the cache; every free suffix slot MASK, markers pre-filled; then in each step one
forward, one restricted sample per open slot, and the most confident are committed. What is spared is exact:

* only rows of the slot's own codebook, only at open slots;
* under `hybrid` the images never look at the action, so action slots are run only in the steps that
  denoise them, and once the images are final their keys and values stay in the cache and only the action
  is run.

Beyond the paper: FAST codes have known expanded lengths, so in each step the most probable sequence that
fills the chunk exactly is found, and only its codes are committed. Every chunk then decodes.
"""

from __future__ import annotations

import math
import time

import numpy as np
import torch
from torch import Tensor

from udvla_ros.decoding.canvas import OPEN, Canvas, CanvasDecoder
from udvla_ros.decoding.interface import DecodeOptions, StepStatistics
from udvla_ros.decoding.sampling import gumbel, most_confident, sample
from udvla_ros.decoding.schedule import early_exit, masked_shares
from udvla_ros.tokens.layout import Prefix


class _Run(Canvas):
    """State of one call; a code that is committed stays."""

    def __init__(self, decoder: CanvasDecoder, prefix: Prefix, options: DecodeOptions, seed: int) -> None:
        super().__init__(decoder, prefix, options, seed)
        self.split = self.cached and self.model.kind.future_exact
        self.images_cached = False
        steps, action_steps = options.steps, options.action_steps or options.steps
        self.action_shares = early_exit(masked_shares(options.schedule, action_steps), options.iterations)
        shares = masked_shares(options.schedule, steps)
        if options.foresight == "sketch":
            self.visual_shares = shares[: math.ceil(steps / 2)][: options.iterations]
        else:
            self.visual_shares = early_exit(shares, options.iterations) if self.foresight else []
        self.total, self.first_action = self.plan()

    def plan(self) -> tuple[int, int]:
        """Return the number of steps and the first one that denoises the action: it takes the last ones."""
        total = max(len(self.visual_shares), len(self.action_shares))
        return total, total - len(self.action_shares)

    def temperature(self, step: int) -> float:
        """Return the temperature of a step; it anneals to zero."""
        return self.options.temperature * (1 - step / self.total)

    def run(self) -> None:
        """Denoise."""
        for step in range(self.total):
            self.step(step)

    def span(self, images_open: bool, actions_due: bool) -> tuple[int, int]:
        """Return the suffix positions whose states this step needs."""
        end = self.ids.shape[1]
        if not self.split:
            return 0, end
        boundary = self.model.layout.template.action_start
        if not actions_due:
            return 0, boundary
        if self.foresight and (images_open or not self.images_cached):
            # The step that runs final images for the first time leaves them in the cache.
            self.images_cached = not images_open
            return 0, end
        return boundary, end

    # -- one step ----------------------------------------------------------------------------------

    def step(self, step: int) -> None:
        """One forward, one sample per open slot, one commitment."""
        started = time.perf_counter()
        images_open = step < len(self.visual_shares) and bool((self.visual == OPEN).any())
        actions_due = step >= self.first_action
        if not images_open and not (actions_due and self.actions_open()):
            return
        first, last = self.span(images_open, actions_due)
        hidden = self.forward(first, last)
        temperature = self.temperature(step)
        visual = self.commit_visual(hidden, step, temperature) if images_open else (0, 0.0)
        action = (0, 0.0)
        if actions_due and self.actions_open():
            action = self.commit_action(hidden, first, step - self.first_action, temperature)
        seconds = time.perf_counter() - started
        self.statistics.append(StepStatistics(self.forward_tokens(first, last), *visual, *action, seconds))

    def commit_visual(self, hidden: Tensor, step: int, temperature: float) -> tuple[int, float]:
        """Commit image tokens; return how many and their mean confidence."""
        open_slots = self.visual == OPEN
        states = hidden[:, self.model.visual_slots - 1][open_slots]
        tokens, confidence = sample(self.model.visual_logits(states), temperature, self.generator)
        every = torch.zeros(open_slots.shape, device=confidence.device)
        every[open_slots] = confidence
        keep = torch.full((self.batch,), int(self.visual_shares[step] * open_slots.shape[1]), device=every.device)
        chosen = most_confident(every, open_slots, keep, self.options.confidence_threshold)
        drawn = torch.full_like(self.visual, OPEN)
        drawn[open_slots] = tokens
        self.write_visual(torch.where(chosen, drawn, self.visual))
        return int(chosen.sum()), float(every[chosen].mean()) if bool(chosen.any()) else 0.0

    def commit_action(self, hidden: Tensor, first: int, step: int, temperature: float) -> tuple[int, float]:
        """Commit action codes and EOA; return how many and their mean confidence."""
        logits = self.model.action_logits(hidden[:, self.model.action_slots - 1 - first]).float()
        log_probs = logits.log_softmax(-1)
        noisy = log_probs
        if temperature > 0:
            noisy = log_probs + temperature * gumbel(logits.shape, self.generator, logits.device)
        best = self.best_sequences(noisy)
        inside = best != OPEN
        confidence = log_probs.gather(-1, best.clamp_min(0)[..., None])[..., 0].exp()
        open_slots = inside & (self.action == OPEN)
        keep = (self.action_shares[step] * inside.sum(1)).floor().long()
        chosen = most_confident(confidence, open_slots, keep, self.options.confidence_threshold)
        self.write_action(torch.where(chosen, best, self.action))
        return int(chosen.sum()), float(confidence[chosen].mean()) if bool(chosen.any()) else 0.0

    def best_sequences(self, scores: Tensor) -> Tensor:
        """Return ``[B, A]`` codes (EOA is ``action_size``), OPEN behind EOA, around what is committed.

        Raises:
            TokenError: no sequence of the given slots fills the chunk (well-formed decoding only).
        """
        best = np.full(self.action.shape, OPEN, np.int64)
        fixed = self.action.cpu().numpy()
        if self.options.well_formed:
            table = scores.cpu().numpy()
            for row in range(self.batch):
                codes = self.lattice.best(table[row], fixed[row])
                best[row, : len(codes) + 1] = [*codes, self.eoa]
        else:
            last = scores.shape[1] - 1 - (fixed[:, ::-1] != OPEN).argmax(1)
            last[(fixed == OPEN).all(1)] = 0
            # What is committed stays, so EOA can no longer come before it.
            before = np.arange(scores.shape[1]) < last[:, None]
            scores = scores.cpu().numpy().copy()
            scores[before, self.eoa] = -np.inf
            free = np.where(fixed == OPEN, scores.argmax(-1), fixed)
            for row in range(self.batch):
                ends = np.flatnonzero(free[row] == self.eoa)
                length = int(ends[0]) + 1 if len(ends) else free.shape[1]
                best[row, :length] = free[row, :length]
        return torch.as_tensor(best, device=self.action.device)

    def actions_open(self) -> bool:
        """Whether any sample still lacks its EOA or a code before it."""
        ended = (self.action == self.eoa).cumsum(1) > 0
        return bool(((self.action == OPEN) & ~ended).any())


class JD3P(CanvasDecoder):
    """Joint denoising of future images and action."""

    name = "jd3p"
    canvas = _Run
