"""The decoder as UD-VLA uses it: over a layout, under one attention kind, heads sliced per modality.

What is UD-VLA's: the mask, a static key/value cache that a suffix overwrites in place, and heads that compute only the
rows of one codebook at the slots that are asked for (the paper's decoding-space mapping, arXiv 2511.01718 section 3.3,
done before the matrix product instead of after it).

Logits at position ``i - 1`` predict token ``i`` everywhere: the next-token head of Emu3 is kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from udvla_ros.errors import ConfigError
from udvla_ros.model import products
from udvla_ros.model.attention import AttentionKind, attention_kind, attention_mask, ended
from udvla_ros.model.decoder import Decoder
from udvla_ros.model.replay import Replay
from udvla_ros.model.runtime import RuntimeOptions
from udvla_ros.model.sequence import Part, Sequence, Span, bias, rows_of
from udvla_ros.model.shape import Shape
from udvla_ros.tokens.layout import Layout, Modality

KEPT = 32  # sequences whose masks and rotations stay prepared: as many sentence lengths


class Cache:
    """Preallocated keys and values of sequences: ``buffer`` ``[layers, 2, B, kv_heads, length, head_dim]``."""

    def __init__(self, shape: Shape, batch: int, length: int, dtype: torch.dtype, device: torch.device) -> None:
        size = (shape.num_hidden_layers, 2, batch, shape.num_key_value_heads, length, shape.head_dim)
        self.buffer = torch.zeros(size, dtype=dtype, device=device)

    @property
    def batch(self) -> int:
        """Number of sequences the buffer holds."""
        return self.buffer.shape[2]


class Backbone(nn.Module):
    """Decoder over a :class:`Layout` under one attention kind."""

    suffix_ids: Tensor
    visual_slots: Tensor
    action_slots: Tensor
    frame_slots: Tensor
    action_rows: Tensor

    def __init__(
        self,
        config: Mapping[str, Any],
        layout: Layout,
        attention: str = "hybrid",
        empty: bool = False,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Build with fresh weights.

        Args:
            config: a bundle's ``backbone`` section, see :class:`~udvla_ros.model.shape.Shape`.
            layout: the sequence the model speaks.
            attention: a name of :data:`udvla_ros.model.attention.KINDS`.
            empty: leave the weights on the meta device, without memory, for a file to give them.
            device, dtype: of fresh weights.
        """
        super().__init__()
        v = layout.vocabulary
        self.layout = layout
        self.kind: AttentionKind = attention_kind(attention)
        self.shape = Shape.of(config, v.size)
        self.decoder = Decoder(self.shape, torch.device("meta") if empty else device, dtype)
        if not empty:
            self.decoder.initialise()
        self.runtime = RuntimeOptions()
        self.replay = Replay()
        self._sequences: OrderedDict[tuple, Sequence] = OrderedDict()
        template = layout.template
        action_rows = v.action_first + v.action_step * np.arange(v.action_size)
        for name, value in {
            "suffix_ids": template.ids,
            "visual_slots": template.visual_slots,
            "action_slots": template.action_slots,
            "frame_slots": template.frame_slots,
            "action_rows": np.append(action_rows, v.eoa),
        }.items():
            self.register_buffer(name, torch.tensor(value, device=device, dtype=torch.long), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.decoder.head.device

    @property
    def dtype(self) -> torch.dtype:
        """The weights' type."""
        return self.decoder.head.dtype

    def run_as(self, runtime: RuntimeOptions) -> Backbone:
        """Take over how decoding is run here; 8-bit weights replace the stored ones for good."""
        self.runtime, self.replay = runtime, Replay(runtime.graphs, runtime.compile)
        if runtime.weights != "float" and not self.decoder.rounded:
            self.decoder.round(runtime.weights)
        return self

    def version(self) -> int:
        """Return a number that changes when the weights do, as far as torch counts; of adapters, too."""
        weights = (self.decoder.embedding, self.decoder.norm, *self.decoder.layers[0].parameters())
        return sum(0 if weight.is_inference() else weight._version for weight in weights)

    # -- decoding ----------------------------------------------------------------------------------

    def new_cache(self, batch: int) -> Cache:
        """Return an empty cache for ``batch`` prefixes with their suffix."""
        length = self.layout.prefix_length + self.layout.suffix_length
        return Cache(self.shape, batch, length, self.dtype, self.device)

    def sequence(self, positions: np.ndarray, modality: np.ndarray, foresight: bool = True) -> Sequence:
        """Return what forwards over prefixes with their suffix need, made once for each sentence's length.

        Args:
            positions, modality: of the prefixes, ``[B, P]``, as :meth:`Layout.prefix` gives them.
            foresight: whether anybody sees the future images but they themselves.
        """
        content = len(modality), positions.tobytes(), modality.tobytes()
        key = (self.kind.name, foresight, self.device, self.dtype, *content)
        found = self._sequences.get(key)
        if found is None:
            found = self._sequences[key] = self._new_sequence(positions, modality, foresight)
            if len(self._sequences) > KEPT:
                self._sequences.popitem(last=False)
        self._sequences.move_to_end(key)
        return found

    def _new_sequence(self, positions: np.ndarray, modality: np.ndarray, foresight: bool) -> Sequence:
        on_host = (torch.as_tensor(np.asarray(part, np.int64)) for part in (modality, positions))
        mask, where = self.sequence_mask(*on_host)
        allowed = mask[:, 0].numpy()
        if not foresight:
            future = np.append(modality[0], self.layout.template.modality) == Modality.FUTURE
            # Rows of the future that nobody reads, but finite ones.
            allowed &= ~future | future[:, None]
        if (allowed == allowed[:1]).all():
            allowed = allowed[:1].copy()
        cos, sin = self.decoder.rotations(where.to(self.device), self.dtype)
        return Sequence(cos, sin, allowed, self.shape.groups)

    def states(self, ids: Tensor, span: Span, cache: Cache | None, outputs: Tensor | None = None) -> Tensor:
        """Run the rows of a span.

        Args:
            ids: ``[B, n]``.
            span: where they stand; see :meth:`Sequence.span`. Without a cache it has to begin at 0.
            cache: what stands before them; their keys and values are written.
            outputs: ``[B, m]`` which of the n rows somebody reads; None: all. With m = 0 the cache alone is filled.

        Returns:
            ``[B, m, hidden_size]`` after the final norm.
        """
        if cache is None:
            if self.kind.ends_at_eoa and span.mask is not None:
                span = self._whole(ids, span.cos, span.sin, span.mask)
            states = self.decoder(ids, span)
        elif recorded := self.replay.find(span, cache.buffer):
            states = recorded(ids, span, cache.buffer)
        else:
            states = self.decoder(ids, span, cache.buffer, outputs is not None and not outputs.shape[1])
        return states if outputs is None else rows_of(states, outputs)

    def _whole(self, ids: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Span:
        """Return the span of whole sequences under a mask ``[B or 1, L, L]``, each one's block ended at its EOA."""
        if self.kind.ends_at_eoa:
            mask = ended(mask, ids == self.layout.vocabulary.eoa)
        every = slice(0, ids.shape[1])
        part = Part(every, every, bias(mask, self.shape.groups, self.dtype))
        return Span(0, ids.shape[1], cos, sin, (part,), mask)

    def prepare(self, sequence: Sequence, cache: Cache, spans: list[tuple[int, int]]) -> None:
        """Record or compile the forwards over these spans, as :class:`RuntimeOptions` ask for."""
        for first, last in spans:
            if first < last:
                self.replay.record(self.decoder, sequence.span(first, last), cache.buffer)

    # -- training, and by itself -------------------------------------------------------------------

    def hidden(self, ids: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """Run a whole sequence by itself.

        Args:
            ids, positions: ``[B, L]``.
            mask: boolean ``[B, 1, L, L]``.

        Returns:
            ``[B, L, hidden_size]`` after the final norm.
        """
        return self.decoder(ids, self._whole(ids, *self.decoder.rotations(positions, self.dtype), mask[:, 0]))

    def visual_head(self) -> Tensor:
        """Return the head's rows ``[visual_size, hidden]`` of the codebook."""
        v = self.layout.vocabulary
        return self.decoder.head[v.visual_first : v.visual_first + v.visual_size]

    def action_head(self) -> Tensor:
        """Return the head's rows ``[action_size + 1, hidden]`` of the FAST codes, then EOA."""
        return self.decoder.head[self.action_rows]

    def logits(self, hidden: Tensor, head: Tensor | None = None) -> Tensor:
        """``[..., hidden] -> [..., ids]`` in float32: of the whole vocabulary, or of a head's rows ``[N, hidden]``."""
        head = self.decoder.head if head is None else head
        if torch.is_grad_enabled():  # training: autocast chooses the type
            return nn.functional.linear(hidden, head)
        return products.logits(hidden.reshape(-1, hidden.shape[-1]), head).view(*hidden.shape[:-1], len(head))

    def visual_logits(self, hidden: Tensor) -> Tensor:
        """``[..., hidden] -> [..., visual_size]``: only the codebook's rows of the head."""
        return self.logits(hidden, self.visual_head())

    def action_logits(self, hidden: Tensor, head: Tensor | None = None) -> Tensor:
        """``[..., hidden] -> [..., action_size + 1]``: the FAST codes, then EOA; ``head`` as gathered before."""
        return self.logits(hidden, self.action_head() if head is None else head)

    def sequence_mask(
        self, prefix_modality: Tensor, prefix_positions: Tensor, suffixes: int = 1, blind: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Return mask ``[B, 1, L, L]`` and positions ``[B, L]`` of a prefix with what follows it.

        Several suffixes (differently corrupted copies, in training) stand behind one prefix, each at the
        positions it would have alone and blind to the others: the prefix is then computed once for all of
        them, which is exact for every kind whose prefix does not see the suffix. ``blind`` more copies of
        the action block follow, which see no future image (``foresight: off``); they keep the positions
        that the action has behind the images.

        Raises:
            ConfigError: several blocks under a kind whose prefix sees the suffix: each would need its own.
        """
        batch, length = prefix_modality.shape
        device = prefix_modality.device
        size, boundary = self.layout.suffix_length, self.layout.template.action_start
        suffix = torch.arange(size, device=device)
        offsets = torch.cat([suffix.repeat(suffixes), suffix[boundary:].repeat(blind)])
        positions = torch.cat([prefix_positions, prefix_positions[:, -1:] + 1 + offsets], 1)
        what = torch.as_tensor(self.layout.template.modality, dtype=torch.long, device=device)
        modality = torch.cat([prefix_modality, what[offsets].expand(batch, -1)], 1)
        groups: tuple[Tensor, ...] = ()
        if suffixes + blind > 1:
            lengths = torch.tensor([length] + [size] * suffixes + [size - boundary] * blind, device=device)
            groups = (torch.arange(len(lengths), device=device).repeat_interleave(lengths),) * 2
        if groups and not self.kind.prefix_exact:
            raise ConfigError(
                f"attention '{self.kind.name}' lets the prefix see the suffix, so that {suffixes + blind} "
                "suffixes cannot share one: train it with copies 1 and blind_copies 0"
            )
        return attention_mask(self.kind, modality, modality, positions, positions, *groups), positions
