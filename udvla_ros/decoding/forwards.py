"""Forwards over a batch of suffixes behind their prefixes: all that decoding asks of the model's layers.

What is spared is exact. Nothing in the prefix sees the suffix, so that it is run once into a cache, its text only when
the sentence changes. Where the images do not see the action either, action slots are run only in the steps that
denoise them, and once the images are final their keys and values stay in the cache and only the action is run.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from udvla_ros.model.backbone import Backbone, Cache
from udvla_ros.tokens.layout import Prefix


@dataclass
class Slot:
    """A cache that is kept from call to call, and what is known of it: the text it holds, whether it was ever used."""

    cache: Cache
    text: tuple | None = None
    fresh: bool = True


@dataclass
class Caches:
    """The cache of one decoder, for one batch size at a time."""

    model: Backbone
    slot: Slot | None = field(default=None, init=False)

    def of(self, batch: int) -> Slot:
        """Return the cache for ``batch`` prefixes: the last one if it fits."""
        wanted = (batch, self.model.dtype, self.model.device)
        if self.slot is not None:
            buffer = self.slot.cache.buffer
            if (self.slot.cache.batch, buffer.dtype, buffer.device) == wanted:
                return self.slot
        self.slot = Slot(self.model.new_cache(batch))
        return self.slot


class Forwards:
    """Forwards of one call.

    Args:
        caches: of the decoder.
        prefix: a batch.
        use_cache: whether to cache what the attention kind allows.
        foresight: whether the action sees the future images at all.
    """

    def __init__(self, caches: Caches, prefix: Prefix, use_cache: bool, foresight: bool) -> None:
        model = self.model = caches.model
        self.prefix, self.prefix_ids = prefix, torch.as_tensor(prefix.ids).to(model.device)
        self.batch, self.length = self.prefix_ids.shape
        self.boundary, self.end = model.layout.template.action_start, len(model.suffix_ids)
        self.foresight = foresight
        self.cached = use_cache and model.kind.prefix_exact
        self.split = self.cached and model.kind.future_exact
        self._images_cached = False
        self._sequence = model.sequence(prefix.positions, prefix.modality, foresight)
        self._slot = caches.of(self.batch) if self.cached else None

    def prefill(self) -> None:
        """Write text and current images into the cache; text that is there from the last call is not run again.

        The text comes first and looks only back, so that its keys and values depend on nothing else.
        """
        slot, model, prefix = self._slot, self.model, self.prefix
        if slot is None:
            return
        n, text = self.length, model.layout.text_slots
        if slot.fresh:
            slot.fresh = False
            boundary, end = n + self.boundary, n + self.end
            spans = [(0, n), (text, n), (n, end), (n, boundary), (boundary, end)]
            model.prepare(self._sequence, slot.cache, spans)
        key = (model.version(), prefix.ids[:, :text].tobytes(), prefix.positions[:, :text].tobytes())
        first = text if slot.text == key else 0
        slot.text = None  # until what it says has been written
        nothing = torch.zeros(self.batch, 0, dtype=torch.long, device=self.prefix_ids.device)
        model.states(self.prefix_ids[:, first:], self._sequence.span(first, n), slot.cache, nothing)
        slot.text = key

    def __call__(self, ids: Tensor, first: int, last: int, rows: Tensor) -> Tensor:
        """Run suffix positions ``[first, last)`` and return the states at some of them.

        With a cache, what stands before ``first`` must have been run, and nothing of it written since.

        Args:
            ids: ``[B, S]``, the whole suffix.
            first, last: positions to run.
            rows: ``[B, m]`` the positions among them that somebody reads.

        Returns:
            ``[B, m, H]``.
        """
        if self._slot is not None:
            span = self._sequence.span(self.length + first, self.length + last)
            return self.model.states(ids[:, first:last], span, self._slot.cache, rows - first)
        states = self.whole(ids, last)
        return states.gather(1, self.length + rows[:, :, None].expand(-1, -1, states.shape[-1]))

    def whole(self, ids: Tensor, last: int) -> Tensor:
        """Run the prefix and the suffix before ``last`` without a cache; return all their states."""
        everything = torch.cat([self.prefix_ids, ids[:, :last]], 1)
        return self.model.states(everything, self._sequence.span(0, everything.shape[1]), None)

    def span(self, images_due: bool, action_due: bool, apart: bool = False) -> tuple[int, int]:
        """Return the positions that a denoising step has to run.

        ``apart``: images without an action in their sequence, whatever the attention kind.
        """
        if not action_due and (self.split or apart):
            return 0, self.boundary
        if not self.split:
            return 0, self.end
        if self.foresight and (images_due or not self._images_cached):
            # The step that runs final images for the first time leaves them in the cache.
            self._images_cached = not images_due
            return 0, self.end
        return self.boundary, self.end

    def tokens(self, first: int, last: int) -> int:
        """Return how many tokens a forward over these positions runs."""
        return last - first if self.cached else self.length + last
