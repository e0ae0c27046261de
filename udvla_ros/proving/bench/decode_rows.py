"""The numbers of one decoding benchmark: what a row holds, what was counted for it, and how two rows relate."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from udvla_ros.decoding.interface import DecodeOptions
from udvla_ros.evaluation.timer import Way, slots_of, stages
from udvla_ros.model.checkpoint import Bundle
from udvla_ros.policy.policy import Policy
from udvla_ros.proving.bench import cost, machine
from udvla_ros.proving.bench.cost import Geometry
from udvla_ros.proving.bench.public_loop import NAME as PUBLIC_LOOP


@dataclass(frozen=True)
class Row:
    """What one contender took.

    Attributes:
        attention: under which it ran; decoders that need ``causal`` run the same weights under it.
        forwards, forward_tokens: of the median chunk, prefill included in the first only.
        cold_ms: its very first chunk, total.
        timings_ms: p50, p95, p99 by stage; ``decode`` is prefill + denoise, ``ready`` the part of denoise until all
            actions are final.
        slots: tokens of one suffix that are decoded, images and action (the published tokens per second
            count these).
        slots_per_second: of the median denoising alone, as published; ``chunks_per_second`` of the median total.
        gflops, gbytes: counted per chunk by :mod:`udvla_ros.proving.bench.cost`; None where the model decides them.
        flops_share, bandwidth_share: of the machine's measured product and copy, by the median decode.
        peak_memory_mib: of the process (or GPU) during its first chunk, weights included.
    """

    name: str
    decoder: str
    steps: int
    cached: bool
    attention: str
    forwards: int
    forward_tokens: int
    cold_ms: float
    timings_ms: dict[str, dict[str, float]]
    slots: int
    slots_per_second: float
    chunks_per_second: float
    gflops: float | None = None
    gbytes: float | None = None
    flops_share: float | None = None
    bandwidth_share: float | None = None
    peak_memory_mib: float | None = None


@dataclass(frozen=True)
class Ratio:
    """How many times faster, by the medians: ``decode`` (prefill + denoise), the whole ``chunk`` (image encoding
    included), and ``tokens``: decoded tokens per second of denoising alone, as the published numbers count.

    ``same_tokens``: whether all tokens of all observations agreed; ``None`` where they need not. In ``matmul_share``
    the slower one is the decoder and the faster one nothing but its matrix products.
    """

    decode: float
    chunk: float
    same_tokens: bool | None
    tokens: float | None = None


@dataclass
class Report:
    """One run; ``weights`` is ``bundle`` or ``random``."""

    bundle: str
    hash: str
    weights: str
    attention: str
    parameters: int
    prefix_tokens: int
    suffix_tokens: int
    device: str
    threads: int
    machine: str
    torch: str
    repeat: int
    runtime: dict[str, Any] = field(default_factory=dict)
    peak_gflops: float | None = None
    peak_gbytes_per_second: float | None = None
    rows: list[Row] = field(default_factory=list)
    ratios: dict[str, Ratio] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)


def row_of(name: str, options: DecodeOptions, chunks: Sequence, cold_ms: float, policy: Policy) -> Row:
    times, slots = stages(chunks), slots_of(Way(policy, options))
    kind = policy.bundle.backbone.kind
    return Row(
        name,
        options.decoder,
        options.steps,
        options.use_cache and kind.prefix_exact and options.decoder != PUBLIC_LOOP,
        kind.name,
        int(np.median([c.statistics["forwards"] for c in chunks])),
        int(np.median([c.statistics["forward_tokens"] for c in chunks])),
        cold_ms,
        times,
        slots,
        round(1e3 * slots / times["denoise"]["p50"], 1),
        round(1e3 / times["total"]["p50"], 2),
    )


def geometry_of(bundle: Bundle) -> Geometry:
    return Geometry.of(dict(bundle.config.backbone), bundle.config.layout.vocabulary.size)


def counted(row: Row, options: DecodeOptions, policy: Policy, peak: machine.Peak | None) -> Row:
    """Add what is counted, and its share of what was measured."""
    backbone = policy.bundle.backbone
    every = cost.forwards(policy.config.layout, backbone.kind, options)
    if every is None:
        return row
    weight = backbone.dtype.itemsize if backbone.runtime.weights == "float" else 1
    total = cost.cost(geometry_of(policy.bundle), every, weight, backbone.dtype.itemsize)
    seconds = row.timings_ms["decode"]["p50"] / 1e3
    row = dataclasses.replace(row, gflops=round(total.flops / 1e9, 3), gbytes=round(total.bytes / 1e9, 4))
    if peak is None:
        return row
    shares = total.flops / seconds / peak.flops, total.bytes / seconds / peak.bytes
    return dataclasses.replace(row, flops_share=round(shares[0], 3), bandwidth_share=round(shares[1], 3))


def ratio_of(fast: Row, slow: Row, ready: bool, same: bool | None) -> Ratio:
    a, b = ({stage: row.timings_ms[stage]["p50"] for stage in row.timings_ms} for row in (fast, slow))
    if ready:  # until the actions are final; the slower one's ends with its last token
        late = a["denoise"] - a["ready"]
        pairs = [(b["decode"], a["decode"] - late), (b["total"], a["total"] - late), (b["denoise"], a["ready"])]
        decode, chunk, tokens = (round(slower / max(faster, 1e-3), 3) for slower, faster in pairs)
    else:
        decode, chunk = (round(b[stage] / a[stage], 3) for stage in ("decode", "total"))
        tokens = round(fast.slots_per_second / slow.slots_per_second, 3)
    return Ratio(decode, chunk, same, tokens)


def matmul_share(row: Row, options: DecodeOptions, policy: Policy) -> Ratio | None:
    """Return the share of the decoder's time that nothing but its matrix products takes."""
    backbone = policy.bundle.backbone
    every = cost.forwards(policy.config.layout, backbone.kind, options)
    if every is None:
        return None
    plain = 1e3 * machine.plain_seconds(geometry_of(policy.bundle), every, backbone.device, backbone.dtype)
    times = row.timings_ms
    return Ratio(round(plain / times["decode"]["p50"], 3), round(plain / times["total"]["p50"], 3), None)
