"""What every decoder writes on: a batch of suffixes behind their prefixes, and forwards over any part of them."""

from __future__ import annotations

import time
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from udvla_ros.decoding.interface import Decoded, DecodeOptions, StepStatistics
from udvla_ros.errors import ConfigError
from udvla_ros.model.backbone import Backbone, StaticCache
from udvla_ros.tokens.action_lattice import Lattice
from udvla_ros.tokens.layout import Modality, Prefix

OPEN = -1


class Canvas:
    """State of one call: the codes so far, and the model's input that says the same.

    ``visual`` ``[B, V]`` and ``action`` ``[B, A]`` hold codes of their own codebook (EOA is number
    ``action_size``), OPEN where nothing is written; ``ids`` ``[B, S]`` is the suffix, MASK where they are OPEN.
    """

    converged: bool | None = None

    def __init__(self, decoder: CanvasDecoder, prefix: Prefix, options: DecodeOptions, seed: int) -> None:
        model = self.model = decoder.backbone
        device = model.device
        self.options, self.lattice = options, decoder.lattice
        self.generator = torch.Generator().manual_seed(seed)
        self.prefix_ids, self.prefix_positions, self.prefix_modality = (
            torch.as_tensor(part).to(device) for part in (prefix.ids, prefix.positions, prefix.modality)
        )
        self.batch, self.length = self.prefix_ids.shape
        self.mask, self.positions = model.sequence_mask(self.prefix_modality, self.prefix_positions)
        self.ids = model.suffix_ids.expand(self.batch, -1).clone()
        self.visual = torch.full((self.batch, len(model.visual_slots)), OPEN, device=device)
        self.action = torch.full((self.batch, len(model.action_slots)), OPEN, device=device)
        self.eoa = model.layout.vocabulary.action_size
        self.cached = options.use_cache and model.kind.prefix_exact
        self.cache = decoder.cache_for(self.batch) if self.cached else None
        self.foresight = options.foresight != "off"
        if not self.foresight:
            hidden_future = model.suffix_modality == Modality.FUTURE
            self.mask[..., self.length :][..., hidden_future] = False
            self.mask[:, :, self.length :][:, :, hidden_future] = True  # rows nobody reads, but finite ones
        self.statistics: list[StepStatistics] = []

    def run(self) -> None:
        """Write the suffix, one forward after the other."""
        raise NotImplementedError

    # -- forwards ----------------------------------------------------------------------------------

    def prefill(self) -> None:
        """Write text and current images into the cache."""
        if self.cache is None:
            return
        n = self.length
        self.cache.start = 0
        self.model.hidden(self.prefix_ids, self.prefix_positions, self.mask[:, :, :n, :n], self.cache)

    def forward(self, first: int, last: int) -> Tensor:
        """Return hidden states ``[B, last - first, H]`` of suffix positions ``[first, last)``.

        With a cache, what stands before ``first`` must have been run, and nothing of it written since.
        """
        n = self.length
        if self.cache is None:
            ids = torch.cat([self.prefix_ids, self.ids[:, :last]], 1)
            whole = slice(n + last)
            return self.model.hidden(ids, self.positions[:, whole], self.mask[:, :, whole, whole])[:, n + first :]
        self.cache.start = n + first
        span = slice(n + first, n + last)
        mask = self.mask[:, :, span, : n + last]
        return self.model.hidden(self.ids[:, first:last], self.positions[:, span], mask, self.cache)

    def forward_tokens(self, first: int, last: int) -> int:
        """Return how many tokens :meth:`forward` runs."""
        return last - first if self.cached else self.length + last

    # -- codes -------------------------------------------------------------------------------------

    def write_visual(self, codes: Tensor) -> None:
        """Make ``codes`` ``[B, V]`` the images."""
        v = self.model.layout.vocabulary
        self.visual = codes
        self.ids[:, self.model.visual_slots] = torch.where(codes == OPEN, v.mask, codes + v.visual_first)

    def write_action(self, codes: Tensor) -> None:
        """Make ``codes`` ``[B, A]`` the action."""
        mask = self.model.layout.vocabulary.mask
        ids = self.model.action_rows[codes.clamp_min(0)]
        self.action = codes
        self.ids[:, self.model.action_slots] = torch.where(codes == OPEN, mask, ids)

    def action_sequences(self) -> list[list[int]]:
        """Return the FAST codes before EOA of every sample."""
        sequences = []
        for row in self.action.cpu().numpy():
            ends = np.flatnonzero(row == self.eoa)
            codes = row[: ends[0]] if len(ends) else row
            sequences.append([int(code) for code in codes if code != OPEN])
        return sequences


class CanvasDecoder:
    """Decoder over one backbone. ``lattice`` says which action-code sequences are well-formed.

    Subclasses name themselves, the attention they need (None: any) and the canvas that does the work.

    Raises:
        ConfigError: the backbone has another attention than the decoder needs.
    """

    name: ClassVar[str]
    attention: ClassVar[str | None] = None
    canvas: ClassVar[type[Canvas]]

    def __init__(self, backbone: Backbone, lattice: Lattice) -> None:
        if self.attention not in (None, backbone.kind.name):
            raise ConfigError(
                f"decoder '{self.name}' needs attention '{self.attention}' and the bundle has "
                f"'{backbone.kind.name}': use jd3p or independent, or train with attention: {self.attention}"
            )
        self.backbone = backbone
        self.lattice = lattice
        self._cache: StaticCache | None = None

    def cache_for(self, batch: int) -> StaticCache:
        """Return a cache that is kept from call to call while the batch stays the same."""
        if self._cache is None or self._cache.batch != batch:
            self._cache = self.backbone.new_cache(batch)
        return self._cache

    @torch.inference_mode()
    def __call__(self, prefix: Prefix, options: DecodeOptions, seed: int) -> Decoded:
        """Write the suffix behind ``prefix`` (a batch). See :class:`~udvla_ros.decoding.interface.Decoder`."""
        canvas = self.canvas(self, prefix, options, seed)
        started = time.perf_counter()
        canvas.prefill()
        writing = time.perf_counter()
        canvas.run()
        finished = time.perf_counter()
        timings = {"prefill": 1e3 * (writing - started), "denoise": 1e3 * (finished - writing)}
        return Decoded(
            canvas.visual.cpu().numpy(), canvas.action_sequences(), timings, canvas.statistics, canvas.cached,
            canvas.converged,
        )  # fmt: skip
