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

import time

import numpy as np
import torch
from torch import Tensor

from udvla_ros.decoding.interface import Decoded, DecodeOptions, StepStatistics
from udvla_ros.decoding.sampling import gumbel, most_confident, sample
from udvla_ros.decoding.schedule import masked_shares
from udvla_ros.model.backbone import Backbone, StaticCache
from udvla_ros.tokens.action_lattice import Lattice
from udvla_ros.tokens.layout import Modality, Prefix

OPEN = -1


class JD3P:
    """Decoder over one backbone. ``lattice`` says which action-code sequences are well-formed."""

    def __init__(self, backbone: Backbone, lattice: Lattice) -> None:
        self.backbone = backbone
        self.lattice = lattice
        self._cache: StaticCache | None = None

    def _cache_for(self, batch: int) -> StaticCache:
        if self._cache is None or self._cache.batch != batch:
            self._cache = self.backbone.new_cache(batch)
        self._cache.start = 0
        return self._cache

    @torch.inference_mode()
    def __call__(self, prefix: Prefix, options: DecodeOptions, seed: int) -> Decoded:
        """Denoise the suffix behind ``prefix`` (a batch). See :class:`Decoder`."""
        run = _Run(self, prefix, options, seed)
        started = time.perf_counter()
        run.prefill()
        denoising = time.perf_counter()
        for step in range(run.total):
            run.step(step)
        finished = time.perf_counter()
        timings = {"prefill": 1e3 * (denoising - started), "denoise": 1e3 * (finished - denoising)}
        return Decoded(run.visual.cpu().numpy(), run.action_sequences(), timings, run.statistics, run.cached)


class _Run:
    """State of one call: what is committed (``visual`` ``[B, V]``, ``action`` ``[B, A]``, OPEN elsewhere)."""

    def __init__(self, decoder: JD3P, prefix: Prefix, options: DecodeOptions, seed: int) -> None:
        model = self.model = decoder.backbone
        device = model.device
        self.options, self.lattice = options, decoder.lattice
        self.generator = torch.Generator().manual_seed(seed)
        self.prefix_ids, self.prefix_positions, self.prefix_modality = (
            torch.as_tensor(part).to(device) for part in (prefix.ids, prefix.positions, prefix.modality)
        )
        self.batch = len(prefix.ids)
        self.mask, self.positions = model.sequence_mask(self.prefix_modality, self.prefix_positions)
        self.length = self.prefix_ids.shape[1]
        self.ids = model.suffix_ids.expand(self.batch, -1).clone()
        self.visual = torch.full((self.batch, len(model.visual_slots)), OPEN, device=device)
        self.action = torch.full((self.batch, len(model.action_slots)), OPEN, device=device)
        self.cached = options.use_cache and model.kind.prefix_exact
        self.split = self.cached and model.kind.future_exact
        self.cache = decoder._cache_for(self.batch) if self.cached else None

        self.foresight = options.foresight != "off"
        if not self.foresight:
            hidden_future = self.model.suffix_modality == Modality.FUTURE
            self.mask[..., self.length :][..., hidden_future] = False
            self.mask[:, :, self.length :][:, :, hidden_future] = True  # rows nobody reads, but finite ones
        action_steps = options.action_steps or options.steps
        self.total = max(options.steps, action_steps) if self.foresight else action_steps
        self.first_action = self.total - action_steps
        self.visual_shares = masked_shares(options.schedule, options.steps)
        self.action_shares = masked_shares(options.schedule, action_steps)
        self.images_cached = False
        self.statistics: list[StepStatistics] = []

    # -- forwards ----------------------------------------------------------------------------------

    def prefill(self) -> None:
        """Write text and current images into the cache."""
        if self.cache is None:
            return
        n = self.length
        self.cache.start = 0
        self.model.hidden(self.prefix_ids, self.prefix_positions, self.mask[:, :, :n, :n], self.cache)

    def forward(self, first: int, last: int) -> Tensor:
        """Return hidden states ``[B, last - first, H]`` of suffix positions ``[first, last)``."""
        n = self.length
        if self.cache is None:
            ids = torch.cat([self.prefix_ids, self.ids], 1)
            return self.model.hidden(ids, self.positions, self.mask)[:, n + first : n + last]
        self.cache.start = n + first
        span = slice(n + first, n + last)
        mask = self.mask[:, :, span, : n + last]
        return self.model.hidden(self.ids[:, first:last], self.positions[:, span], mask, self.cache)

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
        images_open = self.foresight and bool((self.visual == OPEN).any())
        actions_due = step >= self.first_action
        if not images_open and not (actions_due and self.actions_open()):
            return
        first, last = self.span(images_open, actions_due)
        hidden = self.forward(first, last)
        temperature = self.options.temperature * (1 - step / self.total)
        visual = self.commit_visual(hidden, step, temperature) if images_open else (0, 0.0)
        action = (0, 0.0)
        if actions_due and self.actions_open():
            action = self.commit_action(hidden, first, step - self.first_action, temperature)
        seconds = time.perf_counter() - started
        tokens = last - first if self.cached else self.positions.shape[1]
        self.statistics.append(StepStatistics(tokens, *visual, *action, seconds))

    def commit_visual(self, hidden: Tensor, step: int, temperature: float) -> tuple[int, float]:
        """Commit image tokens; return how many and their mean confidence."""
        open_slots = self.visual == OPEN
        states = hidden[:, self.model.visual_slots - 1][open_slots]
        tokens, confidence = sample(self.model.visual_logits(states), temperature, self.generator)
        every = torch.zeros(open_slots.shape, device=confidence.device)
        every[open_slots] = confidence
        share = self.visual_shares[step] if step < len(self.visual_shares) else 0.0
        keep = torch.full((self.batch,), int(share * open_slots.shape[1]), device=every.device)
        chosen = most_confident(every, open_slots, keep, self.options.confidence_threshold)
        drawn = torch.full_like(self.visual, OPEN)
        drawn[open_slots] = tokens
        self.visual = torch.where(chosen, drawn, self.visual)
        first = self.model.layout.vocabulary.visual_first
        slots = self.model.visual_slots
        self.ids[:, slots] = torch.where(chosen, drawn + first, self.ids[:, slots])
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
        self.action = torch.where(chosen, best, self.action)
        rows = self.model.action_rows
        slots = self.model.action_slots
        self.ids[:, slots] = torch.where(chosen, rows[best.clamp_min(0)], self.ids[:, slots])
        return int(chosen.sum()), float(confidence[chosen].mean()) if bool(chosen.any()) else 0.0

    def best_sequences(self, scores: Tensor) -> Tensor:
        """Return ``[B, A]`` codes (EOA is ``action_size``), OPEN behind EOA, around what is committed.

        Raises:
            TokenError: no sequence of the given slots fills the chunk (well-formed decoding only).
        """
        eoa = self.model.layout.vocabulary.action_size
        best = np.full(self.action.shape, OPEN, np.int64)
        fixed = self.action.cpu().numpy()
        if self.options.well_formed:
            table = scores.cpu().numpy()
            for row in range(self.batch):
                codes = self.lattice.best(table[row], fixed[row])
                best[row, : len(codes) + 1] = [*codes, eoa]
        else:
            last = scores.shape[1] - 1 - (fixed[:, ::-1] != OPEN).argmax(1)
            last[(fixed == OPEN).all(1)] = 0
            # What is committed stays, so EOA can no longer come before it.
            before = np.arange(scores.shape[1]) < last[:, None]
            scores = scores.cpu().numpy().copy()
            scores[before, eoa] = -np.inf
            free = np.where(fixed == OPEN, scores.argmax(-1), fixed)
            for row in range(self.batch):
                ends = np.flatnonzero(free[row] == eoa)
                length = int(ends[0]) + 1 if len(ends) else free.shape[1]
                best[row, :length] = free[row, :length]
        return torch.as_tensor(best, device=self.action.device)

    # -- the end -----------------------------------------------------------------------------------

    def actions_open(self) -> bool:
        """Whether any sample still lacks its EOA or a code before it."""
        eoa = self.model.layout.vocabulary.action_size
        ended = (self.action == eoa).cumsum(1) > 0
        return bool(((self.action == OPEN) & ~ended).any())

    def action_sequences(self) -> list[list[int]]:
        """Return the FAST codes before EOA of every sample."""
        eoa = self.model.layout.vocabulary.action_size
        sequences = []
        for row in self.action.cpu().numpy():
            ends = np.flatnonzero(row == eoa)
            codes = row[: ends[0]] if len(ends) else row
            sequences.append([int(code) for code in codes if code != OPEN])
        return sequences
