"""Autoregressive decoding: one code per forward on the causal model, keys and values cached.

The 1x of every comparison in arXiv 2511.01718. Each forward runs the last code with the markers behind it,
and computes the rows of one codebook; the images end where their raster does, the action at EOA.
"""

from __future__ import annotations

from udvla_ros.decoding.base import Call, TokenDecoder
from udvla_ros.decoding.causal import CausalRun


class Autoregressive(TokenDecoder):
    """From left to right, until every sample has its EOA."""

    name = "autoregressive"
    attention = "causal"

    def write(self, call: Call) -> None:
        """Write slot by slot."""
        run = CausalRun(call, self.name)
        codes, ends = run.codes, run.ends()
        for slot in range(run.begin, len(run.places)):
            found, confidence, tokens = run.predict(slot, slot + 1)
            codes[:, slot] = found[:, 0]
            run.write(codes, slot)
            before, ends = ends.clip(max=slot), run.ends()
            run.record(tokens, before, ends.clip(max=slot + 1), confidence, slot)
            if (ends <= slot + 1).all():
                break
