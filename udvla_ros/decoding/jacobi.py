"""Jacobi decoding: all slots assumed at once, again and again, until the answer repeats itself.

PD-VLA (arXiv 2503.02310): on the causal model one forward over an iterate gives the next one, whose first
wrong code is now right. The fixed point is therefore what autoregressive decoding gives, code for code,
and often reached in far fewer forwards. Codes that are final move into the cache and are not run again.
CEED-VLA's early exit (arXiv 2506.13725) stops after a given number of iterations instead.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from udvla_ros.decoding.base import Call, TokenDecoder
from udvla_ros.decoding.causal import CausalRun


class Jacobi(TokenDecoder):
    """From any start to the autoregressive answer."""

    name = "jacobi"
    attention = "causal"

    def write(self, call: Call) -> None:
        """Iterate over all slots that are not final, until none is left or the iterations are.

        ``final`` ``[B]``: how many leading slots of each sample cannot change any more.
        """
        run = CausalRun(call, self.name)
        run.write(start(run))
        slots = len(run.places)
        final, ends = np.full(run.batch, run.begin), np.full(run.batch, slots)
        # Each iteration settles at least one more slot.
        limit = min(call.options.iterations or slots, slots - run.begin)
        call.converged = False
        for iteration in range(1, limit + 1):
            first = int(final[final < ends].min())
            found, confidence, tokens = run.predict(first, slots)
            # Where all codes before it stayed as they were, a new one is the code of that prefix for good.
            stayed = (found == run.codes[:, first:]).int().cumprod(1).sum(1).cpu().numpy()
            run.write(torch.cat([run.codes[:, :first], found], 1), first)
            ends = run.ends()
            settled = np.minimum(first + stayed + 1, ends).clip(min=final)
            call.converged = bool((settled == ends).all())
            if iteration == limit:
                settled = ends
            run.record(tokens, final, settled, confidence, first)
            final = settled
            if call.converged:
                break


def start(run: CausalRun) -> Tensor:
    """Return the first iterate ``[B, N]``."""
    codes, call = run.codes.clone(), run.call
    images = slice(run.begin, run.images)
    layout = call.model.layout
    if call.options.start == "random":
        visual = layout.vocabulary.visual_size
        for part, size in ((images, visual), (slice(run.images, None), call.suffix.eoa)):
            codes[:, part] = torch.randint(size, codes[:, part].shape, generator=call.generator, device=codes.device)
    elif call.options.start == "current" and call.foresight:
        # Current and future images are framed alike.
        current = call.forwards.prefix_ids[:, call.forwards.length - layout.image_tokens :]
        codes[:, images] = current[:, call.model.visual_slots] - layout.vocabulary.visual_first
    return codes
