"""How fast decoders are against each other, in one run, turn by turn, on the same observations.

Ratios are of medians of the same run; times are per chunk, image encoding and prefill included, the cold start apart.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from udvla_ros.decoding.interface import Decoded, DecodeOptions
from udvla_ros.evaluation.timer import Way, device_name, in_turn
from udvla_ros.model.attention import attention_kind
from udvla_ros.model.checkpoint import Bundle
from udvla_ros.model.runtime import RuntimeOptions
from udvla_ros.policy.policy import Observation, Policy
from udvla_ros.proving.bench import machine
from udvla_ros.proving.bench.decode_rows import Report, counted, matmul_share, ratio_of, row_of
from udvla_ros.proving.bench.public_loop import NAME as PUBLIC_LOOP
from udvla_ros.proving.bench.public_loop import PublicLoop
from udvla_ros.tokens.layout import Prefix

OBSERVATIONS = 8  # different ones, used in turn
LARGE = 10**9  # parameters of which no copy in float64 is made
CAUSAL = ("autoregressive", "jacobi")


@dataclass(frozen=True)
class Contender:
    """One decoder with its options."""

    name: str
    options: DecodeOptions


@dataclass(frozen=True)
class Comparison:
    """Two contenders to relate; ``exact``: both must give the very same tokens.

    ``ready``: until the faster one's actions are final, in place of its end.
    """

    name: str
    faster: str
    slower: str
    exact: bool = False
    ready: bool = False


def jd3p_contenders(steps: int) -> tuple[list[Contender], list[Comparison]]:
    """Return JD3P with its prefix cache against the same decoder that runs every forward in full."""
    return contenders(["jd3p", "jd3p_uncached"], DecodeOptions(steps=steps))


def contenders(
    names: Sequence[str],
    options: DecodeOptions,
    plain_steps: int | None = None,
    changes: Mapping[str, Any] | None = None,
) -> tuple[list[Contender], list[Comparison]]:
    """Return decoders by name and what of them can be related.

    Args:
        names: of ``jd3p``, ``jd3p_uncached``, ``independent``, ``autoregressive``, ``jacobi`` and ``public_loop``.
        options: what they have in common.
        plain_steps: one more JD3P without any option, with so many steps: ``plain``.
        changes: one more JD3P with these options changed: ``options``.
    """
    made = {
        name: Contender(
            name,
            dataclasses.replace(options, decoder="jd3p", use_cache=False)
            if name == "jd3p_uncached"
            else dataclasses.replace(options, decoder=name),
        )
        for name in names
    }
    if plain_steps:
        plain = DecodeOptions(steps=plain_steps, schedule=options.schedule, temperature=options.temperature)
        made["plain"] = Contender("plain", plain)
    if changes:
        made["options"] = Contender("options", dataclasses.replace(options, decoder="jd3p", **changes))
    pairs = [
        Comparison("cached_vs_uncached", "jd3p", "jd3p_uncached", exact=True),
        Comparison("jd3p_vs_public_loop", "jd3p", PUBLIC_LOOP),
        Comparison("jd3p_vs_ar", "jd3p", "autoregressive"),
        Comparison("jacobi_vs_ar", "jacobi", "autoregressive", exact=True),
        Comparison("options_vs_plain", "options", "plain"),
        Comparison("options_vs_ar", "options", "autoregressive"),
        Comparison("action_ready_vs_ar", "options" if changes else "jd3p", "autoregressive", ready=True),
    ]
    return list(made.values()), [pair for pair in pairs if pair.faster in made and pair.slower in made]


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
    peak: bool = False,
) -> Report:
    """Time every contender ``repeat`` times, interleaved, and check the tokens that have to agree.

    ``progress`` is called after every chunk. ``peak`` also measures what the machine reaches on plain products and
    copies, and relates the contenders to it.
    """
    bundle, layout = policy.bundle, policy.config.layout
    device = bundle.backbone.device
    seen = observations(bundle, min(repeat, OBSERVATIONS))
    report = Report(
        policy.config.name,
        policy.hash,
        "random" if random_weights else "bundle",
        policy.config.attention,
        bundle.backbone.shape.parameters,
        layout.prefix_length,
        layout.suffix_length,
        str(device),
        torch.get_num_threads(),
        device_name(device),
        torch.__version__,
        repeat,
        dataclasses.asdict(bundle.backbone.runtime),
    )
    policies = {c.name: _policy(policy, c) for c in contenders}
    cold, memory = {}, {}
    counter = machine.PeakMemory(device)
    for contender in contenders:
        counter.reset()
        cold[contender.name] = _timed(policies[contender.name], seen[0], contender)
        memory[contender.name] = counter.mebibytes()
        progress()
    if repeat > 1:
        for contender in contenders:
            policies[contender.name].infer(seen[0], contender.options)  # warm: the second run finds its buffers
    ways = {c.name: Way(policies[c.name], c.options) for c in contenders}
    chunks = in_turn(ways, seen, repeat, seed=lambda turn: 0, progress=progress)
    measured = machine.measured_peak(device, bundle.backbone.dtype) if peak else None
    if measured:
        report.peak_gflops = round(measured.flops / 1e9, 1)
        report.peak_gbytes_per_second = round(measured.bytes / 1e9, 1)
    for contender in contenders:
        name, options = contender.name, contender.options
        row = row_of(name, options, chunks[name], cold[name], policies[name])
        row = dataclasses.replace(row, peak_memory_mib=memory[name])
        report.rows.append(counted(row, options, policies[name], measured))
    rows = {row.name: row for row in report.rows}
    for pair in comparisons:
        same = _same_tokens(policies, seen, contenders, pair) if pair.exact else None
        report.ratios[pair.name] = ratio_of(rows[pair.faster], rows[pair.slower], pair.ready, same)
    if measured and "jd3p" in rows:
        options = next(c for c in contenders if c.name == "jd3p").options
        share = matmul_share(rows["jd3p"], options, policy)
        if share:
            report.ratios["matmul_share"] = share
    report.words = list(bundle.backbone.replay.said)
    return report


def _policy(policy: Policy, contender: Contender) -> Policy:
    """Return a policy that can run the contender: decoders of the causal model get the same weights under `causal`."""
    bundle = policy.bundle
    if contender.options.decoder == PUBLIC_LOOP:
        policy._decoders.setdefault(PUBLIC_LOOP, PublicLoop(bundle))
    if contender.options.decoder not in CAUSAL or bundle.config.attention == "causal":
        return policy
    backbone = copy.copy(bundle.backbone)  # one decoder for both: it knows nothing of masks
    backbone.kind = attention_kind("causal")
    config = dataclasses.replace(bundle.config, attention="causal")
    return Policy(dataclasses.replace(bundle, config=config, backbone=backbone))


def _timed(policy: Policy, observation: Observation, contender: Contender) -> float:
    started = time.perf_counter()
    policy.infer(observation, contender.options)
    return round(1e3 * (time.perf_counter() - started), 2)


def _same_tokens(
    policies: Mapping[str, Policy], seen: Sequence[Observation], contenders: Sequence[Contender], pair: Comparison
) -> bool:
    """Whether both decode the same tokens of every observation.

    Their products have other shapes, so that a draw at the edge of two codes may fall by float32's last digits. Where
    one did, the observation is decoded once more with states in float64, which tells rounding from another function.
    """
    options = {c.name: c.options for c in contenders}
    names = (pair.faster, pair.slower)
    unlike = [one for one in seen if not _equal(*(_decoded(policies[name], one, options[name]) for name in names))]
    if not unlike or policies[pair.faster].bundle.backbone.shape.parameters > LARGE:
        return not unlike
    exact = {name: _exact(policies[name]) for name in names}
    return all(_equal(*(_decoded(exact[name], one, options[name]) for name in names)) for one in unlike)


def _exact(policy: Policy) -> Policy:
    bundle = policy.bundle
    backbone = copy.deepcopy(bundle.backbone).double().run_as(RuntimeOptions(dtype="float32"))
    return Policy(dataclasses.replace(bundle, backbone=backbone))


def _decoded(policy: Policy, observation: Observation, options: DecodeOptions) -> Decoded:
    bundle = policy.bundle
    codes = {name: bundle.vision.encode(image[None]).cpu().numpy() for name, image in observation.images.items()}
    prefix: Prefix = bundle.config.layout.prefix([bundle.text.encode(observation.instruction)], codes)
    return policy._decoder(options.decoder)(prefix, options, 0)


def _equal(a: Decoded, b: Decoded) -> bool:
    return bool((a.visual == b.visual).all()) and a.actions == b.actions
