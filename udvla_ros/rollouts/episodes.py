"""Episodes in memory and on disk: shards of compressed arrays, without pickle.

An episode of T actions has T + 1 frames: the one before each action and the last one. A shard concatenates
its episodes; ``actions_per_episode`` says where they part. ``dataset.json`` beside the shards says what made
them.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from enum import IntEnum
from pathlib import Path
from typing import IO, Any

import numpy as np

from udvla_ros.errors import UdvlaError

FORMAT = "udvla_ros episodes"
VERSION = 1
CUBES = ("red", "green", "blue")  # the order of ``Episode.cubes``
IMAGE = "image."  # before a camera's name, of its array in a shard
BARE = ("front", "wrist")  # cameras whose arrays older shards call by the bare name
DESCRIPTION = "dataset.json"
TURNED_AROUND = "turned by 180 degrees as published"  # ``images`` of a description whose pictures are


class DatasetError(UdvlaError):
    """A folder of episodes is missing, incomplete or of another format."""


class By(IntEnum):
    """Whose an action was. ``NOBODY``'s is never a label: the arm rested, or the policy was soon taken over from."""

    DEMONSTRATED = 0
    POLICY = 1
    CORRECTION = 2
    NOBODY = 3


@dataclass
class Episode:
    """One demonstration of T actions.

    Attributes:
        images: by camera, uint8 RGB [T+1, H, W, 3]; frame t was seen before action t.
        intention: float32 [T, K, D]; what the expert intended from frame t on, without noise: the labels, in the
            convention that the data set's description names. Its first entry is the action proper
            (see :attr:`actions`).
        executed: float32 [T, D]; what was carried out, noise included.
        joints, q_command: float32 [T+1, d], rad, measured and commanded.
        gripper, gripper_command: float32 [T+1], closed fraction, measured and commanded; NaN without a gripper.
        tcp_command: float32 [T+1, 4, 4], pose of the commanded joints in the base frame.
        cubes: float32 [T+1, 3, 7], position (m) and quaternion (w first) of the red, green and blue cube.
        instruction, task, colour: the words and what they mean.
        seed, attempt: what the episode was drawn from.
        success_step: actions after which the task was first fulfilled, -1 for never.
        labelled: steps that are to be learnt from; those behind them only show what came of the last label.
            -1: all.
        intervention: uint8 [T]: whose each action was, of :class:`By`.
    """

    images: dict[str, np.ndarray]
    intention: np.ndarray
    executed: np.ndarray
    joints: np.ndarray
    q_command: np.ndarray
    gripper: np.ndarray
    gripper_command: np.ndarray
    tcp_command: np.ndarray
    cubes: np.ndarray
    instruction: str
    task: str
    colour: str
    seed: int
    attempt: int
    success_step: int
    labelled: int = -1
    intervention: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint8))

    def __post_init__(self) -> None:
        if self.labelled < 0:
            self.labelled = len(self)
        if len(self.intervention) != len(self):
            self.intervention = np.full(len(self), By.DEMONSTRATED, np.uint8)

    @property
    def learnable(self) -> np.ndarray:
        """Steps whose intention is a label, as indices."""
        return np.flatnonzero(self.intervention[: self.labelled] != By.NOBODY)

    @property
    def actions(self) -> np.ndarray:
        """The expert's noiseless action at each step, float32 [T, D]."""
        return self.intention[:, 0]

    @property
    def success(self) -> bool:
        """Whether the task was fulfilled."""
        return self.success_step >= 0

    def __len__(self) -> int:
        return len(self.executed)

    def future(self, step: int, ahead: int) -> int:
        """Return the frame ``ahead`` steps after ``step``, the last one where the episode ends before."""
        return min(step + ahead, len(self))


PER_ACTION = ("intention", "executed", "intervention")
LATER = ("labelled", "intervention")  # what older shards do not have
PER_EPISODE = ("instruction", "task", "colour", "seed", "attempt", "success_step", "labelled")
PER_FRAME = tuple(f.name for f in fields(Episode) if f.name not in (*PER_ACTION, *PER_EPISODE, "images"))


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Call ``write(handle)`` on a temporary file beside ``path`` and rename it: whole, or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as handle:
            write(handle)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_shard(path: Path, episodes: list[Episode]) -> None:
    """Write episodes of the same cameras, joints and actions as one compressed ``.npz``, atomically."""
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(e, name) for e in episodes]) for name in PER_FRAME + PER_ACTION
    }
    arrays |= {IMAGE + name: np.concatenate([e.images[name] for e in episodes]) for name in episodes[0].images}
    arrays |= {name: np.array([getattr(e, name) for e in episodes]) for name in PER_EPISODE}
    arrays["actions_per_episode"] = np.array([len(e) for e in episodes], np.int64)
    write_atomically(Path(path), lambda handle: np.savez_compressed(handle, **arrays))


def read_shard(path: Path) -> list[Episode]:
    """Return the episodes of one shard.

    Raises:
        DatasetError: the file is not a shard of this format.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            names = (*PER_FRAME, *PER_ACTION, *PER_EPISODE, "actions_per_episode")
            arrays = {name: stored[name] for name in names if name in stored or name not in LATER}
            images = {name.removeprefix(IMAGE): stored[name] for name in stored.files if name.startswith(IMAGE)}
            images |= {name: stored[name] for name in BARE if name in stored.files}
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DatasetError(
            f"'{path}' is not a shard of episodes ({error}); delete it, generate again"
        ) from error
    counts = arrays.pop("actions_per_episode")
    ends = np.cumsum(counts)
    frame_ends = np.cumsum(counts + 1)
    episodes = []
    for index, count in enumerate(counts):
        action = slice(ends[index] - count, ends[index])
        frame = slice(frame_ends[index] - count - 1, frame_ends[index])
        values: dict[str, Any] = {name: arrays[name][frame] for name in PER_FRAME}
        values["images"] = {name: pictures[frame] for name, pictures in images.items()}
        values |= {name: arrays[name][action] for name in PER_ACTION if name in arrays}
        values |= {name: arrays[name][index].item() for name in PER_EPISODE if name in arrays}
        episodes.append(Episode(**values))
    return episodes


def shard_paths(folder: Path) -> list[Path]:
    """Return the shards of a data set in order.

    Raises:
        DatasetError: there are none.
    """
    paths = sorted(Path(folder).glob("shard-*.npz"))
    if not paths:
        raise DatasetError(f"no shard-*.npz in '{folder}'; make them: udvla data generate --out {folder}")
    return paths


def read_episodes(folder: Path) -> Iterator[Episode]:
    """Yield every episode of a data set, shard by shard."""
    for path in shard_paths(folder):
        yield from read_shard(path)


def read_description(folder: Path) -> dict[str, Any]:
    """Return ``dataset.json``.

    Raises:
        DatasetError: it is missing (generation did not finish) or of another format or version.
    """
    path = Path(folder) / DESCRIPTION
    if not path.is_file():
        raise DatasetError(f"'{path}' is missing: generation did not finish; run it again to resume")
    description = json.loads(path.read_text())
    if description.get("format") != FORMAT or description.get("version") != VERSION:
        raise DatasetError(f"'{path}' is not {FORMAT} version {VERSION}; generate the data again")
    return description
