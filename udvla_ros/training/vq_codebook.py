"""A codebook that follows its latents: exponential moving averages, and new lives for unused codes.

The Emu3 network of ``transformers`` only looks codes up; what trains them is here (van den Oord et al.,
arXiv 1711.00937, appendix A.1; restarts as in Jukebox, arXiv 2005.00341).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class EmaCodebook(nn.Module):
    """Keeps an embedding matrix at the running mean of the latents that chose each row.

    Args:
        weight: the matrix [codes, width] to keep, changed in place.
        decay: share of the running mean that survives one step.
        dead_below: a code whose running count of uses per step falls below this is restarted.
    """

    def __init__(self, weight: Tensor, decay: float = 0.97, dead_below: float = 0.02) -> None:
        super().__init__()
        self.weight = weight  # shares the network's memory and is saved with the network
        self.decay, self.dead_below = decay, dead_below
        self.register_buffer("count", torch.zeros(weight.shape[0]))
        self.register_buffer("total", torch.zeros_like(weight.detach()))
        self.register_buffer("ready", torch.tensor(False))

    @torch.no_grad()
    def adopt(self) -> None:
        """Go on from the codes that the matrix holds already, instead of starting from the first latents."""
        self.count.fill_(10 * self.dead_below)
        self.total.copy_(self.weight * self.count[:, None])
        self.ready.fill_(True)

    @torch.no_grad()
    def nearest(self, latents: Tensor) -> Tensor:
        """Return the nearest code of each latent: [N, width] -> [N]."""
        scores = self.weight.square().sum(1) - 2.0 * latents @ self.weight.t()
        return scores.argmin(1)

    @torch.no_grad()
    def update(self, latents: Tensor, generator: torch.Generator | None = None, restart: bool = True) -> int:
        """Move the codes towards the latents [N, width] of one step; return how many were restarted."""
        if not self.ready:
            self._start(latents, generator)
        codes = self.nearest(latents)
        uses = torch.bincount(codes, minlength=len(self.count)).float()
        sums = torch.zeros_like(self.total).index_add_(0, codes, latents)
        self.count.mul_(self.decay).add_(uses, alpha=1 - self.decay)
        self.total.mul_(self.decay).add_(sums, alpha=1 - self.decay)
        alive = self.count > 1e-4
        self.weight[alive] = self.total[alive] / self.count[alive, None]
        return self._restart(latents, codes, generator) if restart else 0

    @torch.no_grad()
    def merge(self, closer: float = 0.6) -> int:
        """Merge codes that mean the same into one, freeing the others for a restart; return how many.

        A code is merged into its nearest neighbour when they are closer than ``closer`` times the usual
        distance between neighbours. Left alone, half the codebook shares the empty background, and which of
        its codes is chosen there is chance: noise that whoever predicts codes can never learn.
        """
        distances = torch.cdist(self.weight, self.weight)
        distances.fill_diagonal_(float("inf"))
        radius = closer * distances.amin(1).median()
        merged = 0
        for row in self.count.argsort().tolist():  # the least used first
            distance, other = distances[row].min(0)
            if distance >= radius:
                continue
            self.total[other] += self.total[row]
            self.count[other] += self.count[row]
            self.weight[other] = self.total[other] / self.count[other].clamp_min(1e-4)
            self.count[row], self.total[row] = 0.0, 0.0
            distances[row, :] = distances[:, row] = float("inf")
            merged += 1
        return merged

    def _start(self, latents: Tensor, generator: torch.Generator | None) -> None:
        self._place(torch.arange(len(self.count)), latents, torch.ones(len(latents)), generator)
        self.ready.fill_(True)

    def _restart(self, latents: Tensor, codes: Tensor, generator: torch.Generator | None) -> int:
        dead = torch.nonzero(self.count < self.dead_below).flatten()
        if len(dead):
            # Latents far from their code ask for a new one: rare things (a vivid cube) get codes this way.
            distance = (latents - self.weight[codes]).square().sum(1)
            self._place(dead, latents, distance + 1e-8, generator)
        return len(dead)

    def _place(self, rows: Tensor, latents: Tensor, odds: Tensor, generator: torch.Generator | None) -> None:
        repeat = len(rows) > len(latents)
        chosen = torch.multinomial(odds, len(rows), replacement=repeat, generator=generator)
        jitter = torch.randn(len(rows), latents.shape[1], generator=generator) * 0.01 * latents.std()
        start = 10 * self.dead_below  # long enough to be found before being called dead again
        self.weight[rows] = latents[chosen] + jitter
        self.count[rows] = start
        self.total[rows] = self.weight[rows] * start
