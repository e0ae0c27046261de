"""Chunks of several ways of decoding, timed in turn on the same observations.

Turns matter: a machine that slows down half way slows everybody, and nobody is always first, behind a cache that
another has warmed. The times are those that the chunks carry.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from udvla_ros.decoding.interface import DecodeOptions
from udvla_ros.evaluation.intervals import stage_percentiles
from udvla_ros.policy.policy import ActionChunk, Observation, Policy


class Way(NamedTuple):
    """A policy and how it decodes, in every turn or in each ``every``-th one."""

    policy: Policy
    options: DecodeOptions
    every: int = 1


def in_turn(
    ways: Mapping[str, Way],
    seen: Sequence[Observation],
    turns: int,
    *,
    seed: Callable[[int], int] = lambda turn: turn,
    before: Callable[[str, int], ActionChunk | None] | None = None,
    progress: Callable[[], object] = lambda: None,
) -> dict[str, list[ActionChunk]]:
    """Return the chunks of each way, one a turn; warm ones if each was warmed up before.

    Args:
        ways: by name.
        seen: observations, used in turn.
        turns: how many.
        seed: of a turn's chunks.
        before: the chunk in force for a way in a turn, which several samples are compared with; by default its last.
        progress: called after each chunk.
    """
    taken: dict[str, list[Any]] = {name: [] for name in ways}
    names = list(ways)
    for turn in range(turns):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            policy, options, every = ways[name]
            if turn % every:
                continue
            last = before(name, turn) if before else next(reversed(taken[name]), None)
            taken[name].append(policy.infer(seen[turn % len(seen)], options, seed(turn), last))
            progress()
    return taken


def stages(chunks: Sequence[ActionChunk]) -> dict[str, dict[str, float]]:
    """Return p50, p95, p99 in ms by stage.

    ``decode`` is prefill + denoise, ``ready`` the part of denoise until all actions are final.
    """
    timings = []
    for chunk in chunks:
        times = dict(chunk.timings_ms)
        times["decode"] = times["prefill"] + times["denoise"]
        times["ready"] = times.pop("action_ready", times["total"]) - times["total"] + times["denoise"]
        timings.append(times)
    return stage_percentiles(timings)


def slots_of(way: Way) -> int:
    """Return how many tokens of one suffix are decoded, images and action."""
    layout = way.policy.config.layout
    return layout.action_slots + 1 if way.options.foresight == "off" else layout.suffix_length


def device_name(device: torch.device) -> str:
    """Return the device's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{model} ({platform.machine()} {platform.system()})"
