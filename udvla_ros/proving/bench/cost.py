"""What a decoder costs, counted from its schedule: forwards, multiplications, bytes. No clock in here.

A product of ``[n, k]`` and ``[k, m]`` counts ``2 n k m`` floating-point operations. Bytes are those that have to come
from memory at least: the weights of each forward once, the cache up to its end, and the logits where a loop stores
them. Action slots are counted in every step that may denoise them, which a short action leaves a step earlier.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from udvla_ros.decoding.interface import DecodeOptions
from udvla_ros.decoding.schedule import schedules
from udvla_ros.model.attention import AttentionKind
from udvla_ros.tokens.layout import Layout


@dataclass(frozen=True)
class Forward:
    """One forward over ``rows`` tokens that attend to ``keys``.

    ``head`` lists (rows, codes) of the products with the head; without any, the last layer ends with its keys and
    values. ``passes``: how often the logits are written or read.
    """

    rows: int
    keys: int
    head: tuple[tuple[int, int], ...] = ()
    passes: float = 0.0


@dataclass(frozen=True)
class Cost:
    """Of one chunk: forwards (prefill included), operations and bytes."""

    forwards: int
    flops: float
    bytes: float


@dataclass(frozen=True)
class Geometry:
    """What of a decoder's shape its cost depends on."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int

    @classmethod
    def of(cls, backbone: dict[str, Any], vocabulary: int) -> Geometry:
        """Read a bundle's ``backbone`` section."""
        heads = backbone["num_attention_heads"]
        return cls(
            backbone["hidden_size"],
            backbone["intermediate_size"],
            backbone["num_hidden_layers"],
            heads,
            backbone.get("num_key_value_heads", heads),
            vocabulary,
        )

    @property
    def width(self) -> int:
        """Of one head."""
        return self.hidden // self.heads

    @property
    def key_value(self) -> int:
        """Weights of the key and value projections of one layer."""
        return 2 * self.hidden * self.kv_heads * self.width

    @property
    def rest(self) -> int:
        """Weights of the query, output and MLP projections of one layer."""
        return 2 * self.hidden * self.hidden + 3 * self.hidden * self.intermediate

    @property
    def parameters(self) -> int:
        """All weights: embedding, layers, head."""
        norms = (2 * self.layers + 1) * self.hidden
        return 2 * self.vocabulary * self.hidden + self.layers * (self.key_value + self.rest) + norms


def forwards(layout: Layout, kind: AttentionKind, options: DecodeOptions) -> list[Forward] | None:
    """Return the forwards of one chunk, prefill first; None where they depend on what the model says."""
    if options.decoder == "public_loop":
        return _public(layout, options)
    if options.decoder == "autoregressive":
        return _autoregressive(layout, options)
    asked = options.confidence_threshold is not None or options.entropy_bound is not None or options.remask
    if options.decoder != "jd3p" or asked or options.stop_when_ready or options.sampler == "published":
        return None
    return _jd3p(layout, kind, options)


def _public(layout: Layout, options: DecodeOptions) -> list[Forward]:
    length = layout.prefix_length + layout.suffix_length
    # All logits are written; of the suffix a mask is written, read, and added (two more), the softmax reads and writes,
    # and a draw writes noise, divides by it and looks for the largest (four).
    passes = 1 + 10 * layout.suffix_length / length
    step = Forward(length, length, ((length, layout.vocabulary.size),), passes)
    return [step] * options.steps


def _autoregressive(layout: Layout, options: DecodeOptions) -> list[Forward]:
    n, template, v = layout.prefix_length, layout.template, layout.vocabulary
    images = [] if options.foresight == "off" else [int(slot) for slot in template.visual_slots]
    actions = [int(slot) for slot in template.action_slots]
    found = [Forward(n, n)]
    known = 0 if images else template.action_start
    for slot in images + actions:
        head = (1, v.visual_size) if slot < template.action_start else (1, v.action_size + 1)
        found.append(Forward(slot - known, n + slot, (head,)))
        known = slot
    return found


def _jd3p(layout: Layout, kind: AttentionKind, options: DecodeOptions) -> list[Forward]:
    n, suffix, boundary = layout.prefix_length, layout.suffix_length, layout.template.action_start
    v = layout.vocabulary
    visual, action = len(layout.template.visual_slots), len(layout.template.action_slots)
    cached = options.use_cache and kind.prefix_exact
    split = cached and kind.future_exact
    visual_shares, action_shares = ([step.masked for step in one] for one in schedules(options))
    total = max(len(visual_shares), len(action_shares))
    found = [Forward(n, n)] if cached else []
    left, final = visual, options.foresight == "off"
    for step in range(total):
        images_open, actions_due = step < len(visual_shares) and left > 0, step >= total - len(action_shares)
        first, last = 0, suffix
        if split and not actions_due:
            last = boundary
        elif split and not images_open:
            first, final = (boundary, True) if final else (0, True)
        every = ((images_open, left, v.visual_size), (actions_due, action, v.action_size + 1))
        head = tuple((rows, codes) for wanted, rows, codes in every if wanted)
        found.append(Forward(last - first if cached else n + last, n + last, head))
        if images_open:
            left = min(left, int(visual_shares[step] * visual))
    return found


def cost(geometry: Geometry, every: Iterable[Forward], bytes_per_weight: float, bytes_per_value: float) -> Cost:
    """Return the sum over a chunk's forwards."""
    count, flops, moved = 0, 0.0, 0.0
    for one in every:
        count += 1
        flops += sum(2.0 * n * k * m * times for n, k, m, times in products(geometry, one))
        weights = geometry.layers * (geometry.key_value + geometry.rest)
        heads = {codes for _, codes in one.head}
        weights += geometry.hidden * sum(heads)
        cache = geometry.layers * 2 * geometry.kv_heads * geometry.width * (one.keys + one.rows)
        logits = one.passes * sum(rows * codes for rows, codes in one.head)
        moved += weights * bytes_per_weight + cache * bytes_per_value + logits * 4.0
    return Cost(count, flops, moved)


def products(geometry: Geometry, one: Forward) -> Iterator[tuple[int, int, int, int]]:
    """Yield the matrix products of a forward: ``[n, k] x [k, m]``, and how often; attention per head."""
    g = geometry
    rows, times = one.rows, g.layers - (not one.head)
    yield rows, g.hidden, g.hidden, 2 * times  # query and output
    yield rows, g.hidden, 2 * g.intermediate, times
    yield rows, g.intermediate, g.hidden, times
    yield rows, g.width, one.keys, g.heads * times
    yield rows, one.keys, g.width, g.heads * times
    yield rows, g.hidden, 2 * g.kv_heads * g.width, g.layers
    for rows, codes in one.head:
        if rows:
            yield rows, g.hidden, codes, 1
