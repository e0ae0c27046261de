"""Frames of recorded episodes in memory, for the vision tokeniser."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from udvla_ros.errors import ConfigError
from udvla_ros.rollouts.episodes import Episode, read_shard, shard_paths


@dataclass
class VqData:
    """uint8 RGB [N, H, W, 3] per camera; ``held_out`` are consecutive frames of episodes not trained on.

    Raises:
        ConfigError: a camera has no frames on one of the sides.
    """

    train: dict[str, np.ndarray]
    held_out: dict[str, np.ndarray]
    backgrounds: dict[str, np.ndarray] = field(init=False)

    def __post_init__(self) -> None:
        for name, images in self.train.items():
            if not len(images) or not len(self.held_out.get(name, ())):
                raise ConfigError(f"camera '{name}' has too few episodes to hold some out: record at least two")
        # What a camera sees most of the time; a sample is enough for a median.
        self.backgrounds = {
            name: np.median(images[:: max(1, len(images) // 500)], axis=0).astype(np.uint8)
            for name, images in self.train.items()
        }


def split_episodes(episodes: Iterable[Episode], held_out: float = 0.03) -> VqData:
    """Keep the frames of episodes; the last share ``held_out`` of the episodes (at least one) is not trained on."""
    frames = [episode.images for episode in episodes]
    kept = len(frames) - max(1, round(held_out * len(frames)))
    if kept < 1:
        raise ConfigError(f"{len(frames)} episodes are too few to train on: record at least two")
    cameras = list(frames[0])
    return VqData(
        {name: np.concatenate([frame[name] for frame in frames[:kept]]) for name in cameras},
        {name: np.concatenate([frame[name] for frame in frames[kept:]]) for name in cameras},
    )


def load_data(folder: Path, episodes: int | None = None) -> VqData:
    """Read the shards of a folder, as many as there are now, up to so many episodes.

    Raises:
        DatasetError: no shard, or one of another format.
        ConfigError: fewer than two episodes.
    """

    def read() -> Iterable[Episode]:
        count = 0
        for path in shard_paths(folder):
            for episode in read_shard(path):
                if episodes is not None and count >= episodes:
                    return
                count += 1
                yield episode

    return split_episodes(read())


def sample_pairs(
    data: VqData,
    random: np.random.Generator,
    batch: int,
    crop: int,
    whole: bool,
    grid: int = 8,
    apart: int | None = None,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return random (images, backgrounds), uint8 [B, H, W, 3], per size; views of one size share a batch.

    The second half of a batch holds the partners of the first half: other frames of the same camera, cut
    alike; with ``apart`` only a little later, so that most of their patches show the same.

    Args:
        data: what to draw from; every camera gets the same share of the pixels.
        random: the source of chance.
        batch: how many crops make a step; whole images are as many fewer as they are larger.
        crop: side of a crop in pixels; an image smaller than that is taken whole.
        whole: take whole images.
        grid: cuts are multiples of this many pixels, the side of a code's patch. What lies behind an object
            then looks the same in every cut and needs few codes.
        apart: most frames between the two of a pair; None for any two frames of the camera.
    """
    by_size: dict[tuple[int, int], list] = {}
    for name, images in data.train.items():
        full = images.shape[1:3]
        size = full if whole else (min(crop, full[0]), min(crop, full[1]))
        pairs = max(1, batch // len(data.train) * crop**2 // (size[0] * size[1]) // 2)
        first = random.integers(0, len(images), pairs)
        if apart is None:
            second = random.integers(0, len(images), pairs)
        else:
            second = (first + random.integers(1, apart + 1, pairs)) % len(images)
        corners = [grid * random.integers(0, (full[axis] - size[axis]) // grid + 1, pairs) for axis in (0, 1)]
        windows = [np.s_[top : top + size[0], left : left + size[1]] for top, left in zip(*corners, strict=True)]
        backgrounds = np.stack([data.backgrounds[name][window] for window in windows])
        sides = [
            (np.stack([images[index][window] for index, window in zip(indices, windows, strict=True)]), backgrounds)
            for indices in (first, second)
        ]
        by_size.setdefault(size, []).append(sides)
    batches = []
    for views in by_size.values():
        sides = [view[side] for side in (0, 1) for view in views]
        first, second = (np.concatenate(part) for part in zip(*sides, strict=True))
        batches.append((first, second))
    return batches
