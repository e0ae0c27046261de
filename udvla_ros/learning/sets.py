"""Data sets, generated or imported, as what is learnt from and what is judged by: what :mod:`plan` does with bags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from udvla_ros.errors import ConfigError
from udvla_ros.learning.plan import HELD_OUT, LearnOptions, sizes_for, write_plan
from udvla_ros.model.checkpoint import BundleConfig
from udvla_ros.rollouts import episodes as disk
from udvla_ros.rollouts.bags.export import ExportReport
from udvla_ros.rollouts.episodes import By, Episode
from udvla_ros.rollouts.frames import fitted
from udvla_ros.rollouts.merge import agreed
from udvla_ros.rollouts.writing import DatasetWriter


def is_set(folder: Path) -> bool:
    """Return whether a folder is a data set."""
    return (folder / disk.DESCRIPTION).is_file()


def prepare_sets(
    folders: Sequence[Path], parent: BundleConfig, out: Path, options: LearnOptions
) -> dict[str, ExportReport]:
    """Write ``data/`` and ``held_out/`` (every tenth scene) at the parent's sizes, one shard of each in memory.

    Raises:
        DatasetError: the sets differ in cameras or actions, or one is incomplete.
        ConfigError: a camera that was asked for is in none of them.
    """
    told = agreed(folders)
    seen = {name: (int(h), int(w)) for name, (h, w) in told[0]["cameras"].items()}
    if unknown := [name for name in options.cameras if name not in seen]:
        raise ConfigError(f"'{folders[0]}' has no camera {', '.join(unknown)}; it has {', '.join(seen)}")
    sizes = sizes_for({name: seen[name] for name in options.cameras or seen}, parent.views)
    total = sum(int(one["episodes"]) for one in told)
    parts = {name: DatasetWriter(out / name) for name in ("data", "held_out")}
    taken: dict[str, list[str]] = {name: [] for name in parts}
    number, every, seed = -1, min(HELD_OUT, total), -1
    for folder in folders:
        for path in disk.shard_paths(folder):
            for k, episode in enumerate(disk.read_shard(path)):
                if episode.seed < 0 or episode.seed != seed:  # what was seen in one scene stays together
                    number, seed = number + 1, episode.seed
                held = total > 1 and number % every == every - 1
                part = "held_out" if held else "data"
                parts[part].add(_looked_at(episode, sizes, options.only_corrections and not held))
                taken[part].append(f"{path}:{k}")
    about = {**told[0], "source": [str(folder) for folder in folders]}
    about.pop("labels", None)  # of the generator, before the episodes were shared out
    made = {}
    for name, writer in parts.items():
        if taken[name]:
            writer.finish(about)
            made[name] = ExportReport("data set", str(out / name), taken[name], steps=writer.steps)
    write_plan(out, options)
    return made


def _looked_at(episode: Episode, sizes: dict[str, tuple[int, int]], only_corrections: bool) -> Episode:
    images = {
        name: np.stack([fitted(picture, name, *size, {"fit": "crop"}) for picture in episode.images[name]])
        for name, size in sizes.items()
    }
    by = episode.intervention
    if only_corrections:
        by = np.where(by == By.CORRECTION, by, np.uint8(By.NOBODY))
    return replace(episode, images=images, intervention=by)
