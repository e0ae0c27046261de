"""Jacobi decoding: all slots guessed at once, again and again, until the guess repeats itself.

PD-VLA (arXiv 2503.02310): on the causal model one forward over a guess gives the next guess, whose first
wrong code is now right. The fixed point is therefore what autoregressive decoding gives, code for code,
and often reached in far fewer forwards. Codes that are final move into the cache and are not run again.
CEED-VLA's early exit (arXiv 2506.13725) stops after a given number of iterations instead.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from udvla_ros.decoding.canvas import CanvasDecoder
from udvla_ros.decoding.causal import CausalRun


class _Run(CausalRun):
    """State of one call. ``final`` ``[B]``: how many leading slots of each sample cannot change any more."""

    def run(self) -> None:
        """Guess all slots that are not final, until none is left or the iterations are."""
        self.write(self.guess())
        slots = len(self.places)
        final, ends = np.full(self.batch, self.begin), np.full(self.batch, slots)
        # Each iteration settles at least one more slot.
        limit = min(self.options.iterations or slots, slots - self.begin)
        self.converged = False
        for iteration in range(1, limit + 1):
            first = int(final[final < ends].min())
            found, confidence, tokens = self.predict(first, slots)
            # Where all codes before it stayed as they were, a new one is the code of that prefix for good.
            stayed = (found == self.codes[:, first:]).int().cumprod(1).sum(1).cpu().numpy()
            self.write(torch.cat([self.codes[:, :first], found], 1), first)
            ends = self.ends()
            settled = np.minimum(first + stayed + 1, ends).clip(min=final)
            self.converged = bool((settled == ends).all())
            if iteration == limit:
                settled = ends
            self.record(tokens, final, settled, confidence, first)
            final = settled
            if self.converged:
                break

    def guess(self) -> Tensor:
        """Return the first guess ``[B, N]``."""
        guess = self.codes.clone()
        images = slice(self.begin, self.images)
        if self.options.start == "random":
            visual = self.model.layout.vocabulary.visual_size
            for part, size in ((images, visual), (slice(self.images, None), self.eoa)):
                shape = guess[:, part].shape
                guess[:, part] = torch.randint(size, shape, generator=self.generator, device=guess.device)
        elif self.options.start == "current" and self.foresight:
            # Current and future images are framed alike.
            layout = self.model.layout
            current = self.prefix_ids[:, self.length - layout.image_tokens :][:, self.model.visual_slots]
            guess[:, images] = current - layout.vocabulary.visual_first
        return guess


class Jacobi(CanvasDecoder):
    """From any guess to the autoregressive answer."""

    name = "jacobi"
    attention = "causal"
    canvas = _Run
