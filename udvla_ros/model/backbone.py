"""The Emu3 decoder as UD-VLA uses it: one forward over any span, heads sliced per modality.

The weights and the layers are transformers' ``Emu3ForCausalLM``, untouched, from a few million
parameters to the released 8B. What is ours: the 4-D mask, a static key/value cache that a suffix
overwrites in place, and heads that compute only the rows of one codebook at the slots that are asked for
(the paper's decoding-space mapping, arXiv 2511.01718 section 3.3, done before the matrix product instead
of after it).

Logits at position ``i - 1`` predict token ``i`` everywhere: the next-token head of Emu3 is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Emu3ForCausalLM, Emu3TextConfig

from udvla_ros.errors import ConfigError
from udvla_ros.model.attention import AttentionKind, attention_kind, attention_mask
from udvla_ros.model.engine import Engine
from udvla_ros.model.runtime import RuntimeOptions
from udvla_ros.tokens.layout import Layout


class StaticCache:
    """Preallocated keys and values of one sequence, written at ``start`` by the forward that comes next.

    A forward over ``n`` tokens writes ``[start, start + n)`` of every layer and attends to everything
    before its end: prefill with ``start = 0``, each denoising step with ``start = prefix length``.
    Shapes: ``[layers, 2, B, kv_heads, length, head_dim]``.
    """

    def __init__(
        self, config: Emu3TextConfig, batch: int, length: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (config.num_hidden_layers, 2, batch, config.num_key_value_heads, length, head_dim)
        self.buffer = torch.zeros(shape, dtype=dtype, device=device)
        self.start = 0

    @property
    def batch(self) -> int:
        """Number of sequences the buffer holds."""
        return self.buffer.shape[2]

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any) -> tuple[Tensor, Tensor]:
        """Write one layer's new keys and values ``[B, heads, n, d]``; return all up to their end.

        The signature is the one that transformers' attention calls.
        """
        end = self.start + keys.shape[2]
        stored = self.buffer[layer, :, :, :, :end]
        stored[0, :, :, self.start :] = keys
        stored[1, :, :, self.start :] = values
        return stored[0], stored[1]


class Backbone(nn.Module):
    """Emu3 decoder over a :class:`Layout` under one attention kind."""

    def __init__(
        self,
        config: Mapping[str, Any],
        layout: Layout,
        attention: str = "hybrid",
        runtime: RuntimeOptions | None = None,
    ) -> None:
        """Build with fresh weights.

        Args:
            config: keywords of ``Emu3TextConfig``; ids and vocabulary size come from the layout.
            layout: the sequence the model speaks.
            attention: a name of :data:`udvla_ros.model.attention.KINDS`.
            runtime: how decoders run it; see :mod:`udvla_ros.model.engine`.
        """
        super().__init__()
        v = layout.vocabulary
        ids = {"vocab_size": v.size, "pad_token_id": v.pad, "bos_token_id": v.bos, "eos_token_id": v.eos}
        self.config = Emu3TextConfig(**{"use_cache": False, "tie_word_embeddings": False, **config, **ids})
        self.layout = layout
        self.kind: AttentionKind = attention_kind(attention)
        self.lm = Emu3ForCausalLM(self.config)
        self.runtime = runtime or RuntimeOptions()
        self._engine: Engine | None = None
        template = layout.template
        action_rows = v.action_first + v.action_step * torch.arange(v.action_size)
        buffers = {
            "suffix_ids": torch.tensor(template.ids),
            "suffix_modality": torch.tensor(template.modality),
            "visual_slots": torch.tensor(template.visual_slots),
            "action_slots": torch.tensor(template.action_slots),
            "action_rows": torch.cat([action_rows, torch.tensor([v.eoa])]),
        }
        for name, value in buffers.items():
            self.register_buffer(name, value, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Backbone:
        """Move or cast everything but the rotary frequencies: in half precision positions would blur."""
        rotary = self.lm.model.rotary_emb
        exact = rotary.inv_freq
        super()._apply(fn, recurse)
        rotary.inv_freq = exact.to(rotary.inv_freq.device)
        return self

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.lm.lm_head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The weights' type."""
        return self.lm.lm_head.weight.dtype

    def engine(self) -> Engine:
        """Return the fast forwards over these weights, as :class:`RuntimeOptions` ask for."""
        if self._engine is None or self._engine.runtime != self.runtime:
            self._engine = Engine(self, self.runtime)
        return self._engine.current()

    def new_cache(self, batch: int, suffixes: int = 1) -> StaticCache:
        """Return an empty cache for ``batch`` prefixes with their suffix."""
        length = self.layout.prefix_length + suffixes * self.layout.suffix_length
        return StaticCache(self.config, batch, length, self.dtype, self.device)

    def hidden(
        self, ids: Tensor, positions: Tensor, mask: Tensor, cache: StaticCache | None = None
    ) -> Tensor:
        """Run the decoder.

        Args:
            ids, positions: ``[B, Q]``.
            mask: boolean ``[B, 1, Q, K]`` with ``K = cache.start + Q`` (or ``Q`` without a cache).
            cache: written at its ``start``; ``None`` runs the span by itself.

        Returns:
            ``[B, Q, hidden_size]`` after the final norm.
        """
        return self.lm.model(
            input_ids=ids, position_ids=positions, attention_mask=mask, past_key_values=cache, use_cache=False
        ).last_hidden_state

    def visual_logits(self, hidden: Tensor) -> Tensor:
        """``[..., hidden] -> [..., visual_size]``: only the codebook's rows of the head."""
        return nn.functional.linear(hidden, self.visual_head())

    def visual_head(self) -> Tensor:
        """Return the head's rows ``[visual_size, hidden]`` of the codebook."""
        v = self.layout.vocabulary
        return self.lm.lm_head.weight[v.visual_first : v.visual_first + v.visual_size]

    def action_head(self) -> Tensor:
        """Return the head's rows ``[action_size + 1, hidden]`` of the FAST codes, then EOA."""
        return self.lm.lm_head.weight[self.action_rows]

    def action_logits(self, hidden: Tensor, head: Tensor | None = None) -> Tensor:
        """``[..., hidden] -> [..., action_size + 1]``: the FAST codes, then EOA; ``head`` as gathered before."""
        return nn.functional.linear(hidden, self.action_head() if head is None else head)

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
        modality = torch.cat([prefix_modality, self.suffix_modality[offsets].expand(batch, -1)], 1)
        if suffixes == 1 and not blind:
            return attention_mask(self.kind, modality, modality, positions, positions), positions
        if not self.kind.prefix_exact:
            raise ConfigError(
                f"attention '{self.kind.name}' lets the prefix see the suffix, so that {suffixes + blind} "
                "suffixes cannot share one: train it with copies 1 and blind_copies 0"
            )
        lengths = torch.tensor([length] + [size] * suffixes + [size - boundary] * blind, device=device)
        group = torch.arange(len(lengths), device=device).repeat_interleave(lengths)
        mask = attention_mask(self.kind, modality, modality, positions, positions, group, group)
        return mask, positions
