"""The decoder's forward without the library's overhead: the same weights, fewer and larger operations.

What :meth:`Backbone.hidden` does layer by layer in transformers' modules is done here with query, key and value in
one product, gate and up in another, residuals inside the products, masks and rotations prepared once per call, and
rows that nobody reads left out of the last layer. Training and the uncached reference stay with the modules;
``tests/model/test_engine.py`` holds the two against each other.

The joint matrices are the parameters' own memory: after :meth:`Engine.current` the library's parameters are views
into them, so that nothing is stored twice and an optimiser's step is seen here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from udvla_ros.model.rounding import Linear, plain_linear, rounded_linear
from udvla_ros.model.runtime import RuntimeOptions

if TYPE_CHECKING:
    from udvla_ros.model.backbone import Backbone, StaticCache

SMALL = 1 << 20  # scores of one attention up to which plain products beat the fused kernel on a CPU


@dataclass
class Sequence:
    """Positions and mask of one call, in the form the layers want, and what was cut out of them so far."""

    cos: Tensor  # [B, L, 1, d]
    sin: Tensor  # [B, L, 1, d], its first half negated
    mask: Tensor  # bool [B, 1, L, L]
    groups: int  # query heads per key head
    dtype: torch.dtype
    spans: dict[tuple[int, int], Span] = field(default_factory=dict)

    def span(self, first: int, last: int) -> Span:
        """Return positions ``[first, last)``; they attend to what stands before ``last``."""
        found = self.spans.get((first, last))
        if found is None:
            rows = slice(first, last)
            bias = self._bias(self.mask[:, :, rows, :last])
            found = self.spans[first, last] = Span(first, last, self.cos[:, rows], self.sin[:, rows], bias)
        return found

    def scattered(self, index: Tensor, last: int) -> Span:
        """Return positions ``index`` ``[B, n]``, in any order; they attend to what stands before ``last``."""
        cos, sin = (_rows(table, index) for table in (self.cos, self.sin))
        mask = self.mask[:, 0, :, :last].gather(1, index[:, :, None].expand(-1, -1, last))[:, None]
        return Span(0, last, cos, sin, self._bias(mask), index)

    def _bias(self, mask: Tensor) -> Tensor | None:
        """Additive mask ``[B, 1, groups * n, K]``; None where everything is allowed."""
        if bool(mask.all()):
            return None
        bias = torch.zeros(mask.shape, dtype=self.dtype, device=mask.device).masked_fill_(~mask, float("-inf"))
        return bias.repeat(1, 1, self.groups, 1) if self.groups > 1 else bias


@dataclass
class Span:
    """Rows of one forward: their rotations ``[B, n, 1, d]``, their mask, and where they are written."""

    first: int
    last: int
    cos: Tensor
    sin: Tensor
    bias: Tensor | None
    index: Tensor | None = None


@dataclass
class _Layer:
    norm: Tensor
    qkv: Linear
    query: Linear
    key_value: Linear
    out: Callable[[Tensor, Tensor], Tensor]
    mlp_norm: Tensor
    gate_up: Linear
    down: Callable[[Tensor, Tensor], Tensor]


class Engine:
    """Forwards of one backbone into a static cache."""

    def __init__(self, backbone: Backbone, runtime: RuntimeOptions) -> None:
        self.backbone, self.runtime = backbone, runtime
        config = backbone.config
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.groups = self.heads // self.kv_heads
        self.eps = config.rms_norm_eps
        self.act, self.silu = backbone.lm.model.layers[0].mlp.act_fn, config.hidden_act == "silu"
        width = (self.heads + 2 * self.kv_heads) * self.head_dim
        self._widths = {"qkv": width, "gate_up": 2 * config.intermediate_size}
        self._space: dict[str, Tensor] = {}
        self.layers: list[_Layer] = []
        self.compiled: dict[tuple[int, int, int], Callable[..., Tensor]] = {}
        self.said: list[str] = []
        self._joint: list[tuple[list[nn.Parameter], Tensor]] = []
        self._rounded = -1

    # -- weights -----------------------------------------------------------------------------------

    def version(self) -> int:
        """Return a number that changes when the weights do, as far as torch counts."""
        model = self.backbone.lm.model
        weights = (model.embed_tokens.weight, model.layers[-1].mlp.down_proj.weight)
        return sum(0 if weight.is_inference() else weight._version for weight in weights)

    def current(self) -> Engine:
        """Return the engine, built on the weights as they are now (moved, cast or loaded since the last call)."""
        moved = not self.layers or not all(_joined(parts, whole) for parts, whole in self._joint)
        if moved or (self.runtime.weights == "int8" and self._rounded != self.version()):
            self._build()
        return self

    def _build(self) -> None:
        self._joint = []
        self.layers = [self._layer(layer) for layer in self.backbone.lm.model.layers]
        self.compiled.clear()
        self._rounded = self.version()

    def _layer(self, layer: Any) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        qkv, qkv_bias = self._join(attention.q_proj, attention.k_proj, attention.v_proj)
        gate_up, gate_bias = self._join(mlp.gate_proj, mlp.up_proj)
        split = self.heads * self.head_dim
        make = rounded_linear if self.runtime.weights == "int8" else plain_linear
        biases = (None, None) if qkv_bias is None else (qkv_bias[:split], qkv_bias[split:])
        return _Layer(
            layer.input_layernorm.weight, make(qkv, qkv_bias), make(qkv[:split], biases[0]),
            make(qkv[split:], biases[1]), self._residual(attention.o_proj),
            layer.post_attention_layernorm.weight, make(gate_up, gate_bias), self._residual(mlp.down_proj),
        )  # fmt: skip

    def _residual(self, linear: nn.Linear) -> Callable[[Tensor, Tensor], Tensor]:
        """A linear layer that adds its input's residual."""
        if self.runtime.weights == "int8" or linear.bias is not None:
            make = rounded_linear if self.runtime.weights == "int8" else plain_linear
            plain = make(linear.weight, linear.bias)
            return lambda residual, x: residual.add_(plain(x))
        weight = linear.weight
        return lambda residual, x: residual.addmm_(x, weight.t())

    def _join(self, *linears: nn.Linear) -> tuple[Tensor, Tensor | None]:
        """Make the layers' weights (and biases) views into one matrix; return it."""
        joint: list[Tensor | None] = []
        for name in ("weight", "bias"):
            parts = [getattr(linear, name) for linear in linears]
            if parts[0] is None:
                joint.append(None)
                continue
            if any(part.is_inference() for part in parts):  # made under inference mode: they cannot be re-pointed
                joint.append(torch.cat(parts))
                continue
            # Normal tensors even when called under inference mode: parameters must stay trainable.
            with torch.inference_mode(False), torch.no_grad():
                whole = torch.cat([part.detach() for part in parts])
                begin = 0
                for part in parts:
                    part.data = whole[begin : begin + len(part)]
                    begin += len(part)
            self._joint.append((parts, whole))
            joint.append(whole)
        assert joint[0] is not None
        return joint[0], joint[1]

    # -- forwards ----------------------------------------------------------------------------------

    def sequence(self, positions: Tensor, mask: Tensor) -> Sequence:
        """Make positions ``[B, L]`` and the boolean mask ``[B, 1, L, L]`` ready for many forwards."""
        lm = self.backbone.lm.model
        cos, sin = lm.rotary_emb(lm.embed_tokens.weight[:1, None], position_ids=positions)
        half = self.head_dim // 2
        sin = torch.cat([-sin[..., :half], sin[..., half:]], -1)
        return Sequence(cos[:, :, None], sin[:, :, None], mask, self.groups, self.backbone.dtype)

    def hidden(self, ids: Tensor, span: Span, cache: StaticCache, outputs: Tensor | None = None) -> Tensor:
        """Run the rows of a span.

        Args:
            ids: ``[B, n]``.
            span: where they stand; see :meth:`Sequence.span`.
            cache: what stands before them; their keys and values are written.
            outputs: ``[B, m]`` which of the n rows somebody reads; None: all. With m = 0 the cache alone is filled.

        Returns:
            ``[B, m, hidden_size]`` after the final norm.
        """
        compiled = self.compiled.get((span.first, span.last, len(ids))) if span.index is None else None
        if compiled is not None:
            out = compiled(ids, span.cos, span.sin, span.bias, cache.buffer)
            return out if outputs is None else _rows(out, outputs)
        return self.run(ids, span, cache.buffer, outputs)

    def run(self, ids: Tensor, span: Span, buffer: Tensor, outputs: Tensor | None) -> Tensor:
        """As :meth:`hidden`, layer by layer, on the cache's memory."""
        lm = self.backbone.lm.model
        batch, n = ids.shape
        x = F.embedding(ids, lm.embed_tokens.weight).view(batch * n, -1)
        for number, layer in enumerate(self.layers):
            last = outputs is not None and number == len(self.layers) - 1
            normed = self._norm(x, layer.norm)
            if not last:
                qkv = layer.qkv(normed, self._place("qkv", normed)).view(batch, n, -1, self.head_dim)
                heads, bias, cut = self._rotate(qkv, span, self.heads + self.kv_heads), span.bias, n
                query = heads[:, :, : self.heads]
                self._store(buffer[number], span, heads[:, :, self.heads :], qkv[:, :, self.heads + self.kv_heads :])
            else:
                assert outputs is not None
                key_value = layer.key_value(normed).view(batch, n, -1, self.head_dim)
                keys = self._rotate(key_value, span, self.kv_heads)
                self._store(buffer[number], span, keys, key_value[:, :, self.kv_heads :])
                cut = outputs.shape[1]
                if not cut:
                    break
                flat = (outputs + torch.arange(batch, device=ids.device)[:, None] * n).view(-1)
                x, normed = x[flat], normed[flat]
                query, bias = layer.query(normed).view(batch, cut, -1, self.head_dim), None
                cos, sin = _rows(span.cos, outputs), _rows(span.sin, outputs)
                query = _rotated(query, cos, sin)
                if span.bias is not None:
                    bias = self._bias_rows(span.bias, outputs, n)
            x = layer.out(x, self._attend(query, buffer[number, :, :, :, : span.last], bias))
            normed = self._norm(x, layer.mlp_norm)
            gate, up = layer.gate_up(normed, self._place("gate_up", normed)).chunk(2, -1)
            x = layer.down(x, self._gated(gate, up))
        if outputs is not None and not outputs.shape[1]:
            return x.new_empty(batch, 0, x.shape[-1])
        return self._norm(x, lm.norm.weight).view(batch, -1, x.shape[-1])

    def _gated(self, gate: Tensor, up: Tensor) -> Tensor:
        if self.silu:
            return F.silu(gate, inplace=True).mul_(up)
        return self.act(gate).mul_(up)

    def _place(self, kind: str, x: Tensor) -> Tensor | None:
        """Return memory for a product of ``x``, the same in every layer: fresh pages cost more than they seem."""
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return None
        place = self._space.get(kind)
        if place is None or len(place) < len(x) or place.dtype != x.dtype:
            place = self._space[kind] = x.new_empty(len(x), self._widths[kind])
        return place[: len(x)]

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, self.eps)

    def _rotate(self, heads: Tensor, span: Span, count: int) -> Tensor:
        return _rotated(heads[:, :, :count], span.cos, span.sin)

    def _store(self, layer: Tensor, span: Span, keys: Tensor, values: Tensor) -> None:
        """Write ``[B, n, heads, d]`` into one layer ``[2, B, heads, L, d]`` of the cache."""
        for stored, new in zip(layer, (keys, values), strict=True):
            if span.index is None:
                stored[:, :, span.first : span.last] = new.transpose(1, 2)
            else:
                where = span.index[:, None, :, None].expand(-1, self.kv_heads, -1, self.head_dim)
                stored.scatter_(2, where, new.transpose(1, 2))

    def _attend(self, query: Tensor, key_value: Tensor, bias: Tensor | None) -> Tensor:
        """``[B, n, heads, d]`` over ``[2, B, kv_heads, K, d]`` -> ``[B * n, heads * d]``.

        Query heads that share a key head are rows of one product.
        """
        batch, n = query.shape[:2]
        keys, values = key_value
        rows = self.groups * n
        if self.groups > 1:
            query = query.view(batch, n, self.kv_heads, self.groups, self.head_dim).permute(0, 2, 3, 1, 4)
            query = query.reshape(batch, self.kv_heads, rows, self.head_dim)
        else:
            query = query.transpose(1, 2)
        scale = self.head_dim**-0.5
        small = batch * self.kv_heads * rows * keys.shape[2] <= SMALL
        if small and query.device.type == "cpu" and query.dtype == torch.float32:
            shape = (batch * self.kv_heads, rows, self.head_dim)
            query = query.reshape(shape)
            keys, values = (part.reshape(shape[0], -1, self.head_dim) for part in (keys, values))
            if bias is None:
                scores = torch.bmm(query, keys.transpose(1, 2)).mul_(scale)
            else:
                added = bias.expand(-1, self.kv_heads, -1, -1).reshape(shape[0], rows, -1) if batch > 1 else bias[0]
                scores = torch.baddbmm(added, query, keys.transpose(1, 2), alpha=scale)
            found = torch.bmm(scores.softmax(-1), values).view(batch, self.kv_heads, rows, self.head_dim)
        else:
            found = F.scaled_dot_product_attention(query, keys, values, bias, scale=scale)
        if self.groups > 1:
            found = found.view(batch, self.kv_heads, self.groups, n, self.head_dim).permute(0, 3, 1, 2, 4)
        else:
            found = found.transpose(1, 2)
        return found.reshape(batch * n, -1)

    def _bias_rows(self, bias: Tensor, outputs: Tensor, n: int) -> Tensor:
        per_group = bias[:, 0, :n]
        chosen = per_group.gather(1, outputs[:, :, None].expand(-1, -1, per_group.shape[-1]))[:, None]
        return chosen.repeat(1, 1, self.groups, 1) if self.groups > 1 else chosen


def _rotated(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of ``[B, n, heads, d]``; ``sin`` has its first half negated."""
    return torch.addcmul(heads * cos, heads.roll(heads.shape[-1] // 2, -1), sin)


def _rows(values: Tensor, index: Tensor) -> Tensor:
    """Return rows ``index`` ``[B, m]`` of ``[B, n, ...]``."""
    if len(values) == 1:
        return values[:, index[0]]
    return torch.stack([value[rows] for value, rows in zip(values, index, strict=True)])


def _joined(parts: list[nn.Parameter], whole: Tensor) -> bool:
    where = whole.data_ptr()
    for part in parts:
        if part.data_ptr() != where or part.dtype != whole.dtype:
            return False
        where += part.numel() * part.element_size()
    return True
