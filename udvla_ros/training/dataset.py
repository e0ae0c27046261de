"""Episodes as tokens: encoded once, held in memory, drawn by seed.

Tokens are kept by frame: the codes of each view; and by step: its frame, the frame one chunk later (clamped
to the episode's end), the FAST codes of the expert's intention and the instruction. A batch is a pure function of
``(seed, step)``, so a resumed run and a run on several processes see what an uninterrupted one sees.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from udvla_ros.errors import ConfigError
from udvla_ros.rollouts.episodes import By
from udvla_ros.tokens.layout import Layout, Prefix
from udvla_ros.tokens.text import TextTokenizer

STEP_ARRAYS = ("current", "future", "actions", "chunks", "text", "episode", "places", "named", "by")


@dataclass
class TokenShard:
    """All frames of a data set, and the steps that can be learnt from.

    ``views``: per camera ``[F, rows*cols]`` uint16, all frames. Per step: ``current`` and ``future`` ``[N]``
    index the frames; ``actions`` ``[N, A]`` int16 FAST codes, -1 behind the last; ``chunks`` ``[N, K, D]``
    the actions they encode (the data's numbers); ``text`` ``[N]``: row of ``instructions``; ``episode`` ``[N]``;
    ``places`` ``[N, 1 + C, 3]``: where the commanded TCP and each cube were, m, NaN where nobody knows; ``named``
    ``[N]`` int8: the cube that the instruction names, -1 where nobody knows; ``by`` ``[N]`` uint8: whose action it was
    (:class:`udvla_ros.rollouts.episodes.By`), a demonstration where nobody tells.
    """

    views: dict[str, np.ndarray]
    current: np.ndarray
    future: np.ndarray
    actions: np.ndarray
    chunks: np.ndarray
    text: np.ndarray
    episode: np.ndarray
    places: np.ndarray
    named: np.ndarray
    instructions: list[str]
    by: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint8))

    def __post_init__(self) -> None:
        if len(self.by) != len(self.current):
            self.by = np.zeros(len(self.current), np.uint8)

    @classmethod
    def concatenate(cls, shards: Sequence[TokenShard]) -> TokenShard:
        """Return shards as one."""
        lines: dict[str, int] = {}
        for shard in shards:
            for line in shard.instructions:
                lines.setdefault(line, len(lines))
        frames = np.cumsum([0, *(len(next(iter(shard.views.values()))) for shard in shards)], dtype=np.int32)
        numbers = np.cumsum([0, *(shard.episode.max(initial=-1) + 1 for shard in shards)], dtype=np.int32)
        rows = [np.array([lines[line] for line in shard.instructions], np.int16) for shard in shards]
        joined = {
            "current": [shard.current + first for shard, first in zip(shards, frames, strict=False)],
            "future": [shard.future + first for shard, first in zip(shards, frames, strict=False)],
            "actions": [shard.actions for shard in shards],
            "chunks": [shard.chunks for shard in shards],
            "text": [row[shard.text] for shard, row in zip(shards, rows, strict=True)],
            "episode": [shard.episode + first for shard, first in zip(shards, numbers, strict=False)],
            "places": [shard.places for shard in shards],
            "named": [shard.named for shard in shards],
            "by": [shard.by for shard in shards],
        }
        arrays = {name: np.concatenate(parts) for name, parts in joined.items()}
        views = {name: np.concatenate([shard.views[name] for shard in shards]) for name in shards[0].views}
        return cls(views, **arrays, instructions=list(lines))

    def only(self, pattern: str) -> TokenShard:
        """Return the steps whose instruction the regular expression finds something in.

        Raises:
            ConfigError: there is none.
        """
        wanted = np.array([re.search(pattern, line) is not None for line in self.instructions])
        steps = wanted[self.text]
        if not steps.any():
            raise ConfigError(
                f"only '{pattern}' leaves no instruction of {len(self.instructions)}, such as '{self.instructions[0]}'"
            )
        arrays = {name: getattr(self, name)[steps] for name in STEP_ARRAYS}
        arrays["text"] = (np.cumsum(wanted) - 1)[arrays["text"]].astype(self.text.dtype)
        lines = [line for line, keep in zip(self.instructions, wanted, strict=True) if keep]
        return TokenShard(self.views, **arrays, instructions=lines)

    def at(self, frames: np.ndarray) -> dict[str, np.ndarray]:
        """Return the codes of some frames, per camera."""
        return {name: codes[frames] for name, codes in self.views.items()}

    def save(self, path: Path) -> None:
        """Write one ``.npz`` without pickle, atomically."""
        views: dict[str, Any] = {f"view.{name}": codes for name, codes in self.views.items()}
        temporary = path.with_suffix(".tmp.npz")
        np.savez(
            temporary, **views, **{name: getattr(self, name) for name in STEP_ARRAYS},
            instructions=np.array(self.instructions),
        )  # fmt: skip
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> TokenShard:
        """Read what :meth:`save` wrote, or a folder of it as one. Raises ConfigError where there is none."""
        if path.is_dir():
            return cls.concatenate([cls.load(part) for part in sorted(path.glob("*.npz"))])
        if not path.is_file():
            raise ConfigError(f"no token file at {path}; make it with `udvla train policy`")
        with np.load(path, allow_pickle=False) as stored:
            views = {k.removeprefix("view."): stored[k] for k in stored.files if k.startswith("view.")}
            rest = {k: stored[k] for k in STEP_ARRAYS if k in stored}
            return cls(views, **rest, instructions=[str(line) for line in stored["instructions"]])


@dataclass
class Sequences:
    """A shard assembled into prefix and suffix ids, split by episode into training and validation."""

    prefix_ids: np.ndarray  # [N, P] int32
    prefix_positions: np.ndarray  # [N, P] int32
    prefix_modality: np.ndarray  # [N, P] int8
    suffix: np.ndarray  # [N, S] int32
    silent: Prefix  # [1, P]: text and positions of a prefix without an instruction
    text_slots: int
    train: np.ndarray  # [Nt] steps
    validation: np.ndarray  # [Nv]
    shard: TokenShard

    @classmethod
    def assemble(
        cls, shard: TokenShard, layout: Layout, text: TextTokenizer, held_out: float = 0.02, foresight: str = "future"
    ) -> Sequences:
        """Build all sequences; a ``held_out`` share of the episodes, all over the data, is kept for validation.

        ``foresight`` ``current`` puts the image as it is in place of the future one (an ablation of the paper).
        """
        lines = [text.encode(line) for line in shard.instructions]
        prefix = layout.prefix([lines[row] for row in shard.text], shard.at(shard.current))
        codes = [row[row >= 0].tolist() for row in shard.actions]
        suffix = layout.suffix(shard.at(shard.current if foresight == "current" else shard.future), codes)
        every = max(2, round(1 / held_out))
        held = shard.episode % every == min(every, int(shard.episode.max()) + 1) - 1
        if held.all():  # a single episode: its end
            held = np.arange(len(held)) >= 0.8 * len(held)
        return cls(
            prefix.ids.astype(np.int32), prefix.positions.astype(np.int32), prefix.modality.astype(np.int8),
            suffix.astype(np.int32), layout.prefix([[]], shard.at(shard.current[:1])), layout.text_slots,
            np.flatnonzero(~held), np.flatnonzero(held), shard,
        )  # fmt: skip

    def prefixes(self, steps: np.ndarray, silent: np.ndarray) -> Prefix:
        """Return the prefixes of some steps ``[B]``; where ``silent`` ``[B]``, without their instruction."""
        parts = (self.prefix_ids, self.prefix_positions, self.prefix_modality)
        ids, positions, modality = (part[steps].astype(np.int64) for part in parts)
        text = np.zeros(ids.shape[1], bool)
        text[: self.text_slots] = True
        ids = np.where(silent[:, None] & text, self.silent.ids, ids)
        positions = np.where(silent[:, None], self.silent.positions, positions)
        return Prefix(ids, positions, np.where(silent[:, None], self.silent.modality, modality))

    def draw(self, size: int, seed: int, step: int, corrections: float = 1.0) -> np.ndarray:
        """Return ``size`` training steps of the data for this optimiser step.

        ``corrections``: how much more often a step of a hand that took over is drawn than another.
        """
        rng = np.random.default_rng([seed, step])
        if corrections == 1.0:
            return rng.choice(self.train, size)
        weight = np.where(self.shard.by[self.train] == By.CORRECTION, corrections, 1.0)
        return rng.choice(self.train, size, p=weight / weight.sum())
