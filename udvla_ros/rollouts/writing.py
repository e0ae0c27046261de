"""A data set as it fills: shards as they are full, the description last, so that a torn set does not look whole."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from udvla_ros.rollouts import episodes as disk
from udvla_ros.rollouts.episodes import By, Episode

SHARD = 50  # episodes of one file


class DatasetWriter:
    """Episodes of the same cameras, sizes and actions; at most :data:`SHARD` of them are in memory."""

    def __init__(self, out: Path) -> None:
        self.out, self.episodes, self.frames, self.steps, self.shards = out, 0, 0, 0, 0
        self.kinds: Counter[str] = Counter()
        self.whose: Counter[str] = Counter()
        self.sizes: dict[str, tuple[int, ...]] = {}
        self._waiting: list[Episode] = []

    def add(self, episode: Episode) -> None:
        """Write an episode.

        Raises:
            DatasetError: its cameras or their sizes are not those of the episodes before.
        """
        sizes = {name: images.shape[1:3] for name, images in episode.images.items()}
        if self.sizes and sizes != self.sizes:
            raise disk.DatasetError(f"an episode has cameras {sizes}, those before have {self.sizes}")
        self.sizes = sizes
        self.episodes += 1
        self.frames += len(episode) + 1
        self.steps += len(episode.learnable)
        self.kinds[episode.task or "recorded"] += 1
        self.whose.update(By(value).name.lower() for value in episode.intervention[: episode.labelled].tolist())
        self._waiting.append(episode)
        if len(self._waiting) == SHARD:
            self._write()

    def _write(self) -> None:
        disk.write_shard(self.out / f"shard-{self.shards:05d}.npz", self._waiting)
        self._waiting, self.shards = [], self.shards + 1

    def finish(self, about: Mapping[str, Any]) -> None:
        """Write what waits and the description; ``about``: ``action``, ``control_hz`` and where it comes from."""
        if self._waiting:
            self._write()
        description = {
            "format": disk.FORMAT, "version": disk.VERSION, **about, "episodes": self.episodes, "shards": self.shards,
            "episodes_per_task": dict(self.kinds), "frames": self.frames, "actions": self.steps,
            "steps_by": dict(self.whose), "cameras": {name: list(size) for name, size in self.sizes.items()},
        }  # fmt: skip
        text = json.dumps(description, indent=2).encode()
        disk.write_atomically(self.out / disk.DESCRIPTION, lambda handle: handle.write(text))
