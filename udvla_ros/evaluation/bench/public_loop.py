"""The baseline: JD3P as the published code runs it, in our words.

Every step runs text, current images and suffix from the first token to the last, computes float32 logits of the whole
vocabulary at every position, rules out other codebooks by adding a full-size mask of minus infinity to the suffix's,
takes the softmax over all ids, draws every slot from it (``torch.multinomial``), and commits by confidence with Gumbel
noise on the ranking. A FAST code that does not decode becomes a chunk of zeros, as there; nothing here is meant for a
robot. The published loop always draws; temperature 0 (the arg-max, to compare tokens) is ours.
"""

from __future__ import annotations

import dataclasses
import math
import time

import numpy as np
import torch
from torch import Tensor

from udvla_ros.decoding.canvas import OPEN, Canvas, CanvasDecoder
from udvla_ros.decoding.interface import Decoded, DecodeOptions, Guess
from udvla_ros.decoding.sampling import gumbel
from udvla_ros.errors import TokenError
from udvla_ros.model.checkpoint import Bundle
from udvla_ros.tokens.layout import Prefix

NAME = "public_loop"


class _Run(Canvas):
    """State of one call."""

    def __init__(
        self, decoder: CanvasDecoder, prefix: Prefix, options: DecodeOptions, seed: int, guess: Guess | None = None
    ) -> None:
        super().__init__(decoder, prefix, options, seed, guess)
        v = self.model.layout.vocabulary
        self.visual_ids = torch.arange(v.visual_first, v.visual_first + v.visual_size, device=self.ids.device)

    def run(self) -> None:
        """Denoise, image and action by one schedule each, all of both in every forward."""
        for step in range(self.options.steps):
            self.step(step)
        self.ready = time.perf_counter()

    def step(self, step: int) -> None:
        """One full forward, one softmax over the vocabulary, one commitment."""
        n, v, steps = self.length, self.model.layout.vocabulary, self.options.steps
        everything = torch.cat([self.prefix_ids, self.ids], 1)
        hidden = self.model.states(everything, self.sequence.span(0, everything.shape[1]), None)
        logits = self.model.logits(hidden)[:, n - 1 : -1]  # those that predict the suffix
        boundary = self.model.layout.template.action_start
        others = torch.full_like(logits, -math.inf)
        others[:, :boundary, self.visual_ids] = 0.0
        others[:, boundary:, self.model.action_rows] = 0.0
        logits += others
        del others
        probabilities = logits.softmax(-1)
        temperature = self.options.temperature
        drawn = probabilities.argmax(-1)
        if temperature > 0:
            flat = probabilities.view(-1, probabilities.shape[-1])
            drawn = torch.multinomial(flat, 1, generator=self.generator).view(drawn.shape)
        confidence = probabilities.gather(-1, drawn[..., None])[..., 0]
        del logits, probabilities
        noise = temperature * math.prod(1 - s / steps for s in range(step + 1))
        ids, committed = self.ids, []
        for slots in (self.model.visual_slots, self.model.action_slots):
            unknown = ids[:, slots] == v.mask
            ranking = confidence[:, slots].clamp_min(1e-9).log()
            if noise > 0:
                ranking = ranking + noise * gumbel(ranking.shape, self.generator, ids.device)
            ranking = ranking.masked_fill(~unknown, math.inf)
            masked = math.floor(len(slots) * math.cos(math.pi / 2 * (step + 1) / steps)) if step + 1 < steps else 0
            again = torch.zeros_like(unknown).scatter_(1, ranking.argsort(dim=1, stable=True)[:, :masked], True)
            taken = unknown & ~again
            ids[:, slots] = torch.where(taken, drawn[:, slots], ids[:, slots])
            committed.append((taken.sum(), (confidence[:, slots] * taken).sum()))
        self.note(self.length + ids.shape[1], *committed)
        self.read(ids)

    def read(self, ids: Tensor) -> None:
        """Say in codes what the ids are."""
        v = self.model.layout.vocabulary
        images = ids[:, self.model.visual_slots]
        self.visual = torch.where(images == v.mask, OPEN, images - v.visual_first)
        action = ids[:, self.model.action_slots]
        codes = torch.where(action == v.eoa, v.action_size, (action - v.action_first) * v.action_step)
        self.action = torch.where(action == v.mask, OPEN, codes)


class PublicLoop(CanvasDecoder):
    """The published loop over one bundle. It ignores what it does not know: schedules, thresholds, the cache."""

    name = NAME
    canvas = _Run

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle.backbone, bundle.fast.lattice(bundle.config.layout.action_slots))
        self.fast = bundle.fast
        self.zeros = bundle.fast.encode(np.zeros((bundle.fast.chunk, bundle.fast.dimensions)), clip=True)
        self.malformed = 0

    def __call__(self, prefix: Prefix, options: DecodeOptions, seed: int, guess: Guess | None = None) -> Decoded:
        """Decode without a cache; what does not decode becomes zeros and is counted."""
        decoded = super().__call__(prefix, dataclasses.replace(options, use_cache=False), seed)
        for row, codes in enumerate(decoded.actions):
            try:
                self.fast.decode(codes)
            except TokenError:
                decoded.actions[row] = self.zeros
                self.malformed += 1
        return decoded
