"""Episodes to tokens: the FAST fit on their intentions, and every frame through the vision tokeniser."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm import tqdm

from udvla_ros.errors import TokenError
from udvla_ros.model.checkpoint import ActionConvention
from udvla_ros.rollouts.episodes import CUBES, Episode, read_description, read_shard, shard_paths
from udvla_ros.tokens.action import FastTokenizer
from udvla_ros.tokens.normalize import QuantileNormalizer
from udvla_ros.tokens.vision import VisionTokenizer
from udvla_ros.training.dataset import TokenShard

if TYPE_CHECKING:
    from udvla_ros.training.kept import Brought

# Half ranges that are never gone below: a motion that never happens keeps a sane scale.
ROTATION_FLOOR = 0.1  # rad per step, of a TCP
JOINT_FLOOR = 0.005  # rad per step
ABSOLUTE_FLOOR = 0.05  # rad
PUBLISHED = ActionConvention()
HELD_OUT = 4000  # chunks at most that the scores are taken from


def fit_normalizer(chunks: np.ndarray, action: ActionConvention = PUBLISHED) -> QuantileNormalizer:
    """Measure quantile ranges of chunks ``[N, K, D]``.

    Those of steps are symmetric about zero, so that "stay" is exactly 0 after normalisation and stays so through FAST.
    """
    flat = chunks.reshape(-1, chunks.shape[-1])
    gripper = {} if action.gripper is None else {action.gripper: (-1.0, 1.0)}
    if action.space == "joint_absolute":
        return QuantileNormalizer.fit(flat, floor=2 * ABSOLUTE_FLOOR, ranges=gripper)
    reach = np.abs(np.quantile(flat, [0.01, 0.99], axis=0)).max(0)
    turning = slice(3, 6) if action.space == "tcp_delta" else slice(None)
    reach[turning] = np.maximum(reach[turning], ROTATION_FLOOR if action.space == "tcp_delta" else JOINT_FLOOR)
    ranges = {i: (-float(r), float(r)) for i, r in enumerate(reach) if r > 0}
    return QuantileNormalizer.fit(flat, ranges=ranges | gripper)


def convention_of(episodes: Path, fallback: ActionConvention = PUBLISHED) -> ActionConvention:
    """Return what the actions of a data set mean, as its description tells; the fallback where it does not."""
    told = read_description(episodes).get("action")
    if told is None:
        return fallback
    known = {field.name for field in dataclasses.fields(ActionConvention)}
    return ActionConvention(**{key: value for key, value in told.items() if key in known})


def fit_actions(
    episodes: Path, vocabulary_size: int, scale: float, limit: int = 40_000, seed: int = 0
) -> tuple[FastTokenizer, QuantileNormalizer, dict[str, float]]:
    """Fit normaliser and FAST on the episodes' intentions; return them with held-out scores.

    Scores: ``codes_mean``, ``codes_max``, and ``error_rms`` of the round trip in normalised units.
    """
    chunks = np.concatenate([e.intention[e.learnable] for path in shard_paths(episodes) for e in read_shard(path)])
    if len(chunks) < 2:
        raise TokenError(f"{episodes} holds {len(chunks)} chunks to learn from; record more")
    held_out = min(HELD_OUT, len(chunks) // 5 + 1)
    chunks = np.random.default_rng(seed).permutation(chunks)[: limit + held_out]
    normalizer = fit_normalizer(chunks, convention_of(episodes))
    scaled = normalizer.normalize(chunks)
    fast = FastTokenizer.fit(scaled[held_out:], vocabulary_size, scale)
    codes = fast.encode_batch(scaled[:held_out], clip=True)
    lengths = [len(sequence) for sequence in codes]
    back = np.stack([fast.decode(sequence) for sequence in codes[:1000]])
    scores = {
        "codes_mean": float(np.mean(lengths)),
        "codes_max": float(max(lengths)),
        "error_rms": float(np.sqrt(np.mean((back - scaled[: len(back)]) ** 2))),
    }
    return fast, normalizer, scores


def tokenize(
    episodes: Sequence[Path],
    vision: VisionTokenizer,
    fast: FastTokenizer,
    normalizer: QuantileNormalizer,
    slots: int,
    kept: Path,
    brought: Mapping[Path, Brought] | None = None,
) -> TokenShard:
    """Encode every frame and chunk of folders of episodes, with a progress bar; as many files at once as threads.

    What ``kept`` holds of an earlier call is taken as it is, so that data which have grown cost what is new.

    Pictures and labels of a folder that ``brought`` names are put into a bundle's conventions first.

    Chunks that need more than ``slots - 1`` codes are left out of the training steps (their share is printed);
    frames without a chunk of their own (the last of an episode) serve as future images only.
    """
    paths = [path for folder in episodes for path in shard_paths(folder)]
    kept.mkdir(parents=True, exist_ok=True)
    threads = torch.get_num_threads()
    # A small encoder gains little from two threads on one image and all from two on two.
    with ThreadPoolExecutor(threads, initializer=partial(torch.set_num_threads, 1)) as pool:
        work = partial(
            _tokenize_shard, vision=vision, fast=fast, normalizer=normalizer, slots=slots, kept=kept, brought=brought
        )
        dropped = sum(tqdm(pool.map(work, paths), total=len(paths), desc="tokenize", unit="file"))
    torch.set_num_threads(threads)
    made = TokenShard.load(kept)
    if not len(made.current):
        raise TokenError(f"no chunk of {episodes} fits {slots} action slots; raise action_slots")
    if dropped:
        print(f"left out {dropped} chunks: longer than {slots - 1} codes")
    return made


def _tokenize_shard(
    path: Path, vision: VisionTokenizer, fast: FastTokenizer, normalizer: QuantileNormalizer, slots: int, kept: Path,
    brought: Mapping[Path, Brought] | None = None,
) -> int:  # fmt: skip
    """Keep the tokens of one file; return how many chunks were too long."""
    file = kept / f"{path.parent.name}-{path.stem}.npz"
    if file.is_file():
        return 0
    shard = read_shard(path)
    views = {}
    into = (brought or {}).get(path.parent)
    for name in shard[0].images if into is None else into.bundle.cameras:
        images = np.concatenate([episode.images[name] for episode in shard])
        if into is not None:
            images = into.pictures(name, images)
        views[name] = vision.encode(images).cpu().numpy().reshape(len(images), -1).astype(np.uint16)
    current, future, actions, chunks, text, number, places, named, by = [], [], [], [], [], [], [], [], []
    instructions: dict[str, int] = {}
    offset = dropped = 0
    for count, episode in enumerate(shard):
        steps = episode.learnable
        labels = episode.intention if into is None else into.labels(episode.intention)
        codes = fast.encode_batch(normalizer.normalize(labels[steps]), clip=True)
        row = instructions.setdefault(episode.instruction, len(instructions))
        for step, sequence in zip(steps.tolist(), codes, strict=True):
            if len(sequence) > slots - 1:
                dropped += 1
                continue
            current.append(offset + step)
            future.append(offset + episode.future(step, episode.intention.shape[1]))
            actions.append(np.pad(sequence, (0, slots - 1 - len(sequence)), constant_values=-1))
            chunks.append(labels[step])
            by.append(episode.intervention[step])
            text.append(row)
            number.append(count)
            places.append(np.concatenate([episode.tcp_command[step, None, :3, 3], episode.cubes[step, :, :3]]))
            named.append(CUBES.index(episode.colour) if episode.colour in CUBES else -1)
        offset += _frames(episode)
    size = fast.chunk, fast.dimensions
    TokenShard(
        views, np.array(current, np.int32), np.array(future, np.int32),
        np.array(actions, np.int16).reshape(-1, slots - 1), np.array(chunks, np.float32).reshape(-1, *size),
        np.array(text, np.int16), np.array(number, np.int32),
        np.array(places, np.float32).reshape(-1, 1 + len(CUBES), 3), np.array(named, np.int8), list(instructions),
        np.array(by, np.uint8),
    ).save(file)  # fmt: skip
    return dropped


def _frames(episode: Episode) -> int:
    return len(episode) + 1
