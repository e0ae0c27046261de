"""Autoregressive decoding: one code per forward on the causal model, keys and values cached.

The 1x of every comparison in arXiv 2511.01718. Each forward runs the last code with the markers behind it,
and computes the rows of one codebook; the images end where their raster does, the action at EOA.
"""

from __future__ import annotations

from udvla_ros.decoding.canvas import CanvasDecoder
from udvla_ros.decoding.causal import CausalRun


class _Run(CausalRun):
    """State of one call."""

    def run(self) -> None:
        """Write slot by slot until every sample has its EOA."""
        codes, ends = self.codes, self.ends()
        for slot in range(self.begin, len(self.places)):
            found, confidence, tokens = self.predict(slot, slot + 1)
            codes[:, slot] = found[:, 0]
            self.write(codes, slot)
            before, ends = ends.clip(max=slot), self.ends()
            self.record(tokens, before, ends.clip(max=slot + 1), confidence, slot)
            if (ends <= slot + 1).all():
                break


class Autoregressive(CanvasDecoder):
    """From left to right."""

    name = "autoregressive"
    attention = "causal"
    canvas = _Run
