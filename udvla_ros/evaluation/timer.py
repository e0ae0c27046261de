"""Chunks of several ways of decoding, timed in turn on the same observations.

Turns matter: a machine that slows down half way slows everybody, and nobody is always first, behind a cache that
another has warmed. The times are those that the chunks carry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from udvla_ros.decoding.interface import DecodeOptions
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
