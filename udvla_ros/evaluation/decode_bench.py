"""How fast decoders are against each other, in one run, turn by turn, on the same observations.

Turns matter: a machine that slows down half way slows every contender. Ratios are of medians of the same run;
times are per chunk, image encoding and prefill included, the cold start apart.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from udvla_ros.decoding.interface import Decoded, DecodeOptions
from udvla_ros.decoding.registry import make_decoder
from udvla_ros.evaluation.intervals import stage_percentiles
from udvla_ros.model.checkpoint import Bundle
from udvla_ros.policy.policy import Observation, Policy
from udvla_ros.tokens.layout import Prefix

OBSERVATIONS = 8  # different ones, used in turn


@dataclass(frozen=True)
class Contender:
    """One decoder with its options."""

    name: str
    options: DecodeOptions


@dataclass(frozen=True)
class Comparison:
    """Two contenders to relate; ``exact``: both must give the very same tokens."""

    name: str
    faster: str
    slower: str
    exact: bool = False


@dataclass(frozen=True)
class Row:
    """What one contender took.

    Attributes:
        forwards, forward_tokens: of the median chunk, prefill included in the first only.
        cold_ms: its very first chunk, total.
        timings_ms: p50, p95, p99 by stage; ``decode`` is prefill + denoise.
        slots: tokens of one suffix that are decoded, images and action (the published tokens per second
            count these).
        slots_per_second: of the median denoising alone, as published; ``chunks_per_second`` of the median total.
    """

    name: str
    decoder: str
    steps: int
    cached: bool
    forwards: int
    forward_tokens: int
    cold_ms: float
    timings_ms: dict[str, dict[str, float]]
    slots: int
    slots_per_second: float
    chunks_per_second: float


@dataclass(frozen=True)
class Ratio:
    """How many times faster, by the medians: ``decode`` (prefill + denoise) and the whole ``chunk``.

    ``same_tokens``: whether all tokens of all observations agreed; ``None`` where they need not.
    """

    decode: float
    chunk: float
    same_tokens: bool | None


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
    rows: list[Row] = field(default_factory=list)
    ratios: dict[str, Ratio] = field(default_factory=dict)


def jd3p_contenders(steps: int) -> tuple[list[Contender], list[Comparison]]:
    """Return JD3P with its prefix cache against the same decoder that runs every forward in full."""
    cached = Contender("jd3p", DecodeOptions(steps=steps))
    full = Contender("jd3p_uncached", DecodeOptions(steps=steps, use_cache=False))
    return [cached, full], [Comparison("cached_vs_uncached", cached.name, full.name, exact=True)]


def observations(bundle: Bundle, count: int, seed: int = 0) -> list[Observation]:
    """Return smooth random pictures of the right sizes with a sentence the bundle knows (no camera is needed)."""
    rng = np.random.default_rng(seed)
    words = bundle.text.decode([1]) or "go"
    made = []
    for _ in range(count):
        images = {}
        for view in bundle.config.views:
            coarse = rng.integers(0, 256, (view.rows, view.cols, 3), np.uint8)
            repeat = (view.height // view.rows, view.width // view.cols)
            images[view.name] = coarse.repeat(repeat[0], 0).repeat(repeat[1], 1)
        made.append(Observation(images, words))
    return made


def measure(
    policy: Policy,
    contenders: Sequence[Contender],
    comparisons: Sequence[Comparison],
    repeat: int,
    random_weights: bool = False,
    progress: Callable[[], object] = lambda: None,
) -> Report:
    """Time every contender ``repeat`` times, interleaved, and check the tokens that have to agree.

    ``progress`` is called after every chunk.
    """
    bundle, layout = policy.bundle, policy.config.layout
    seen = observations(bundle, min(repeat, OBSERVATIONS))
    report = Report(
        policy.config.name, policy.hash, "random" if random_weights else "bundle", policy.config.attention,
        sum(p.numel() for p in bundle.backbone.lm.parameters()), layout.prefix_length, layout.suffix_length,
        str(bundle.backbone.device), torch.get_num_threads(), _machine(bundle.backbone.device),
        torch.__version__, repeat,
    )  # fmt: skip
    cold = {c.name: _timed(policy, seen[0], c) for c in contenders}
    for contender in contenders:
        policy.infer(seen[0], contender.options)  # warm: the second run finds its buffers
    chunks: dict[str, list] = {c.name: [] for c in contenders}
    for turn in range(repeat):
        for contender in _rotated(contenders, turn):
            chunks[contender.name].append(policy.infer(seen[turn % len(seen)], contender.options))
            progress()
    for contender in contenders:
        report.rows.append(_row(contender, chunks[contender.name], cold[contender.name], policy))
    rows = {row.name: row for row in report.rows}
    for pair in comparisons:
        same = _same_tokens(bundle, seen, contenders, pair) if pair.exact else None
        fast, slow = rows[pair.faster].timings_ms, rows[pair.slower].timings_ms
        ratios = (round(slow[stage]["p50"] / fast[stage]["p50"], 3) for stage in ("decode", "total"))
        report.ratios[pair.name] = Ratio(*ratios, same)
    return report


def _rotated(contenders: Sequence[Contender], turn: int) -> Iterator[Contender]:
    """Nobody is always first, behind a cache that another has warmed."""
    for index in range(len(contenders)):
        yield contenders[(turn + index) % len(contenders)]


def _timed(policy: Policy, observation: Observation, contender: Contender) -> float:
    started = time.perf_counter()
    policy.infer(observation, contender.options)
    return round(1e3 * (time.perf_counter() - started), 2)


def _row(contender: Contender, chunks: Sequence, cold_ms: float, policy: Policy) -> Row:
    layout, options = policy.config.layout, contender.options
    timings = [{**c.timings_ms, "decode": c.timings_ms["prefill"] + c.timings_ms["denoise"]} for c in chunks]
    times = stage_percentiles(timings)
    action = layout.action_slots + 1
    slots = action if options.foresight == "off" else layout.suffix_length
    return Row(
        contender.name, options.decoder, options.steps,
        options.use_cache and policy.bundle.backbone.kind.prefix_exact,
        int(np.median([c.statistics["forwards"] for c in chunks])),
        int(np.median([c.statistics["forward_tokens"] for c in chunks])),
        cold_ms, times, slots,
        round(1e3 * slots / times["denoise"]["p50"], 1), round(1e3 / times["total"]["p50"], 2),
    )  # fmt: skip


def _same_tokens(
    bundle: Bundle, seen: Sequence[Observation], contenders: Sequence[Contender], pair: Comparison
) -> bool:
    options = {c.name: c.options for c in contenders}
    return all(
        _equal(*(_decoded(bundle, one, options[name]) for name in (pair.faster, pair.slower))) for one in seen
    )


def _decoded(bundle: Bundle, observation: Observation, options: DecodeOptions) -> Decoded:
    codes = {name: bundle.vision.encode(image[None]).numpy() for name, image in observation.images.items()}
    prefix: Prefix = bundle.config.layout.prefix([bundle.text.encode(observation.instruction)], codes)
    return make_decoder(options.decoder, bundle)(prefix, options, 0)


def _equal(a: Decoded, b: Decoded) -> bool:
    return bool((a.visual == b.visual).all()) and a.actions == b.actions


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} {platform.system()}"
