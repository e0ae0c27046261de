"""The Emu3-shaped decoder: one forward for training, for decoding with and without a cache, on CPUs and GPUs.

RMSNorm, rotary positions, grouped heads, SwiGLU (Emu3, arXiv 2409.18869). Query, key and value are one matrix, gate
and up another: fewer, larger products. :func:`published` says under which names their rows stand in a file.

Without gradients sums are written over the residual, and where the cache alone is wanted, the last layer ends with it.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from udvla_ros.model.products import LARGEST, Matrix, Rounded
from udvla_ros.model.sequence import Part, Span
from udvla_ros.model.shape import Shape


class Layer(nn.Module):
    """Attention and MLP, each behind its norm and added to its input. Rows are flat: ``[B * n, hidden]``."""

    def __init__(self, shape: Shape, device: torch.device | None, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.shape, self.head_dim = shape, shape.head_dim
        hidden, middle = shape.hidden_size, shape.intermediate_size
        kind = {"device": device, "dtype": dtype}
        self.attention_norm = nn.Parameter(torch.ones(hidden, **kind))
        self.qkv = Matrix(shape.query_width + 2 * shape.key_width, hidden, **kind)
        self.out = Matrix(hidden, shape.query_width, **kind)
        self.mlp_norm = nn.Parameter(torch.ones(hidden, **kind))
        self.gate_up = Matrix(2 * middle, hidden, **kind)
        self.down = Matrix(hidden, middle, **kind)

    def forward(
        self, x: Tensor, span: Span, batch: int, stored: Tensor | None, fill: bool, space: dict[str, Tensor]
    ) -> Tensor:
        """Run the rows of a span.

        Args:
            x: ``[B * n, hidden]``; overwritten where no gradient is wanted.
            span: where they stand.
            batch: B.
            stored: this layer's cache ``[2, B, key heads, length, d]``; None: the rows attend to each other alone.
            fill: whether only the cache is wanted.
            space: memory for products, the same in every layer: fresh pages cost more than they seem.

        Returns:
            ``[B * n, hidden]``, as they came with ``fill``.
        """
        shape, heads, kv, d = self.shape, self.shape.num_attention_heads, self.shape.num_key_value_heads, self.head_dim
        normed = normalised(x, self.attention_norm, shape.rms_norm_eps)
        product = self.qkv.product(normed, _place(space, "qkv", normed, (heads + 2 * kv) * d))
        product = product.view(batch, -1, heads + 2 * kv, d)
        rotate(product[:, :, : heads + kv], span.cos, span.sin)
        query, keys, values = (part.transpose(1, 2) for part in product.split((heads, kv, kv), 2))
        if stored is not None:
            key_value = product[:, :, heads:].view(batch, -1, 2, kv, d)
            stored[:, :, :, span.first : span.last] = key_value.permute(2, 0, 3, 1, 4)
            keys, values = stored.unbind()
        if fill:
            return x
        found = [self._attend(query[:, :, p.rows], keys[:, :, p.keys], values[:, :, p.keys], p) for p in span.parts]
        attended = found[0] if len(found) == 1 else torch.cat(found, 1)
        x = self._added(self.out, x, attended.reshape(len(x), -1))
        normed = normalised(x, self.mlp_norm, shape.rms_norm_eps)
        product = self.gate_up.product(normed, _place(space, "gate_up", normed, 2 * shape.intermediate_size))
        gate, up = product.chunk(2, -1)
        gated = F.silu(gate) * up if torch.is_grad_enabled() else F.silu(gate, inplace=True).mul_(up)
        return self._added(self.down, x, gated)

    def _added(self, matrix: Matrix, residual: Tensor, x: Tensor) -> Tensor:
        if self.training and self.shape.attention_dropout:
            return residual + F.dropout(matrix.product(x), self.shape.attention_dropout)
        return matrix.added(residual, x)

    def _attend(self, query: Tensor, keys: Tensor, values: Tensor, part: Part) -> Tensor:
        """``[B, heads, n, d]`` over ``[B, key heads, K, d]`` -> ``[B, n, heads, d]``.

        Query heads that share a key head are rows of one product.
        """
        groups, dropout = self.shape.groups, self.shape.attention_dropout if self.training else 0.0
        if groups == 1:
            return F.scaled_dot_product_attention(query, keys, values, part.bias, dropout).transpose(1, 2)
        batch, heads, n, d = query.shape
        together = query.reshape(batch, heads // groups, groups * n, d)
        found = F.scaled_dot_product_attention(together, keys, values, part.bias, dropout)
        return found.reshape(batch, heads, n, d).transpose(1, 2)


class Decoder(nn.Module):
    """Token ids to states. ``embedding`` and ``head`` ``[ids, hidden]`` are not tied."""

    def __init__(self, shape: Shape, device: torch.device | None = None, dtype: torch.dtype | None = None) -> None:
        """Allocate the weights; :meth:`initialise` or a file gives them values."""
        super().__init__()
        self.shape = shape
        kind = {"device": device, "dtype": dtype}
        self.embedding = nn.Parameter(torch.empty(shape.vocab_size, shape.hidden_size, **kind))
        self.layers = nn.ModuleList(Layer(shape, device, dtype) for _ in range(shape.num_hidden_layers))
        self.norm = nn.Parameter(torch.ones(shape.hidden_size, **kind))
        self.head = nn.Parameter(torch.empty(shape.vocab_size, shape.hidden_size, **kind))
        self.checkpointing = False  # recompute activations in the backward pass: less memory, a third more time
        self._space: dict[str, Tensor] = {}

    @torch.no_grad()
    def initialise(self) -> None:
        """Draw fresh weights, as Emu3 does: normal matrices, norms of one."""
        for parameter in self.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, self.shape.initializer_range)

    def forward(self, ids: Tensor, span: Span, buffer: Tensor | None = None, fill: bool = False) -> Tensor:
        """Run the rows of a span.

        Args:
            ids: ``[B, n]``.
            span: where they stand and what they see.
            buffer: the cache ``[layers, 2, B, key heads, length, d]``, which holds what stands before them and takes
                what they say; None: the span is all there is.
            fill: whether the cache alone is wanted.

        Returns:
            ``[B, n, hidden]`` after the final norm; with ``fill`` without a row.
        """
        batch, last = len(ids), self.shape.num_hidden_layers - 1
        x = F.embedding(ids, self.embedding).view(ids.numel(), -1)
        for number, layer in enumerate(self.layers):
            stored = None if buffer is None else buffer[number]
            given = (x, span, batch, stored, fill and number == last, self._space)
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(layer, *given, use_reentrant=False)
            else:
                x = layer(*given)
        x = x.view(batch, -1, self.shape.hidden_size)
        return x[:, :0] if fill else normalised(x, self.norm, self.shape.rms_norm_eps)

    def rotations(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return cosine and sine ``[B, L, 1, d]`` of positions ``[B, L]``, found in float32: halves would blur."""
        half = self.shape.head_dim // 2
        powers = torch.arange(half, dtype=torch.float32, device=positions.device) / half
        angles = positions[:, :, None].float() * (1.0 / self.shape.rope_theta**powers)
        cos, sin = angles.cos(), angles.sin()
        return torch.cat([cos, cos], -1)[:, :, None].to(dtype), torch.cat([-sin, sin], -1)[:, :, None].to(dtype)

    def round(self, kind: str) -> None:
        """Put 8-bit weights in the place of the layers' own: ``int8`` or ``fp8``. There is no way back."""
        assert kind in LARGEST
        for layer in self.layers:
            for name in ("qkv", "out", "gate_up", "down"):
                matrix = getattr(layer, name)
                if isinstance(matrix, Matrix):
                    setattr(layer, name, Rounded(matrix.weight, kind))

    @property
    def rounded(self) -> bool:
        """Whether :meth:`round` was called."""
        return any(isinstance(module, Rounded) for module in self.modules())


def published(shape: Shape) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """Yield our names of the weights, each with the published names of its rows in order, and how many they are.

    Published means those of Emu3 and of every bundle: ``model.layers.0.self_attn.q_proj.weight``.
    """
    h, q, kv, i = shape.hidden_size, shape.query_width, shape.key_width, shape.intermediate_size
    yield "embedding", [("model.embed_tokens.weight", shape.vocab_size)]
    for number in range(shape.num_hidden_layers):
        ours, theirs = f"layers.{number}.", f"model.layers.{number}."
        for name, rows in (
            ("attention_norm", [("input_layernorm", h)]),
            ("qkv.weight", [("self_attn.q_proj", q), ("self_attn.k_proj", kv), ("self_attn.v_proj", kv)]),
            ("out.weight", [("self_attn.o_proj", h)]),
            ("mlp_norm", [("post_attention_layernorm", h)]),
            ("gate_up.weight", [("mlp.gate_proj", i), ("mlp.up_proj", i)]),
            ("down.weight", [("mlp.down_proj", h)]),
        ):
            yield ours + name, [(f"{theirs}{part}.weight", count) for part, count in rows]
    yield "norm", [("model.norm.weight", h)]
    yield "head", [("lm_head.weight", shape.vocab_size)]


def normalised(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm of ``[..., hidden]``. torch has no fused one for CPUs: fewer passes than its own, written out."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_grad_enabled():
        return F.rms_norm(x, weight.shape, weight, eps)
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True).mul_(x.shape[-1] ** -0.5)
    return x.mul(norm.square_().add_(eps).rsqrt_()).mul_(weight)


def rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Rotary embedding of ``[B, n, heads, d]``, in place; ``sin`` has its first half negated."""
    rolled = heads.roll(heads.shape[-1] // 2, -1)
    heads.mul_(cos).addcmul_(rolled, sin)


def _place(space: dict[str, Tensor], name: str, x: Tensor, width: int) -> Tensor | None:
    if x.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return None
    place = space.get(name)
    if place is None or len(place) < len(x) or place.dtype != x.dtype:
        with torch.inference_mode(False):  # it may be written again outside of it
            place = space[name] = x.new_empty(len(x), width)
    return place[: len(x)]
