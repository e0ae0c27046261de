"""The smallest of everything, with random weights: shapes and rules are real, what comes out means nothing."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import Emu3VQVAE

from udvla_ros.model.backbone import Backbone
from udvla_ros.model.checkpoint import ActionConvention, Bundle, BundleConfig
from udvla_ros.tokens.action import FastTokenizer
from udvla_ros.tokens.layout import Layout, Modality, Prefix, View, Vocabulary
from udvla_ros.tokens.normalize import QuantileNormalizer
from udvla_ros.tokens.text import TextTokenizer
from udvla_ros.tokens.vision import VisionTokenizer, small_config
from udvla_ros.training.dataset import Sequences, TokenShard

torch.set_num_threads(1)

SENTENCES = ("touch the red cube", "pick up the green cube", "stop", "push the blue cube to the left")
CHUNK, DIMENSIONS, GRIPPER = 4, 3, 2
VISUAL, FAST_CODES, TEXT_SLOTS, ACTION_SLOTS = 16, 24, 9, 14
VIEWS = (View("front", 8, 12, 2, 3), View("wrist", 8, 8, 2, 2))
# A wide initialisation: near-uniform logits would let rounding decide and hide real differences.
BACKBONE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rope_theta": 10000.0,
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "initializer_range": 0.4,
}


@functools.cache
def text() -> TextTokenizer:
    """A word list."""
    return TextTokenizer.train(SENTENCES, size_limit=32, spare=4)


def chunks(count: int, seed: int = 0) -> np.ndarray:
    """Smooth normalised chunks ``[count, CHUNK, DIMENSIONS]`` whose gripper is -1 or 1."""
    rng = np.random.default_rng(seed)
    start, slope = rng.uniform(-0.5, 0.5, (2, count, 1, DIMENSIONS))
    values = start + slope * np.linspace(0, 1, CHUNK)[:, None]
    values = np.clip(values + rng.normal(0, 0.2, values.shape), -1, 1)
    values[..., GRIPPER] = np.where(start[..., GRIPPER] > 0, 1.0, -1.0)
    return values


@functools.cache
def fast() -> FastTokenizer:
    """A FAST tokeniser whose longest chunk has CHUNK * DIMENSIONS = 12 codes."""
    return FastTokenizer.fit(chunks(300), FAST_CODES, scale=3)


@functools.cache
def layout(text_slots: int = TEXT_SLOTS, action_slots: int = ACTION_SLOTS) -> Layout:
    """Two cameras, ten codes in all."""
    vocabulary = Vocabulary.compact(text().vocab_size, VISUAL, fast().vocab_size)
    return Layout(vocabulary, VIEWS, text_slots, action_slots)


def backbone(attention: str = "hybrid", seed: int = 0, layout: Layout | None = None, **changes) -> Backbone:
    """A decoder of some ten thousand random weights, in evaluation mode."""
    torch.manual_seed(seed)
    return Backbone({**BACKBONE, **changes}, layout or globals()["layout"](), attention).eval()


@functools.cache
def vision() -> VisionTokenizer:
    """Random weights: codes of 4x4 pixels."""
    torch.manual_seed(0)
    return VisionTokenizer(Emu3VQVAE(small_config(base=32, multipliers=(1, 1, 1), codes=VISUAL, width=4)))


def normalizer() -> QuantileNormalizer:
    """Two dimensions in metres, one gripper command."""
    return QuantileNormalizer([-0.02, -0.04, -1.0], [0.02, 0.04, 1.0])


def bundle(attention: str = "hybrid", seed: int = 0, model: Backbone | None = None) -> Bundle:
    """A whole bundle in memory, of random weights or around a model."""
    action = ActionConvention(chunk=CHUNK, dimensions=DIMENSIONS, gripper=GRIPPER)
    config = BundleConfig(
        "tiny-random", dict(BACKBONE), layout(), attention, action, {"steps": 3, "schedule": "public"}
    )
    return Bundle(config, model or backbone(attention, seed), vision(), text(), fast(), normalizer())


def saved(folder: Path, attention: str = "hybrid", seed: int = 0) -> Path:
    """The same on disk."""
    return bundle(attention, seed).save(folder, "# random weights, for tests\n")


def image_codes(batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random codes ``[batch, rows * cols]`` of both cameras."""
    rng = np.random.default_rng(seed)
    return {view.name: rng.integers(0, VISUAL, (batch, view.codes)) for view in VIEWS}


def prefix(texts: Sequence[Sequence[int]], seed: int = 0, layout: Layout | None = None) -> Prefix:
    """A batch with given text ids and random images."""
    return (layout or globals()["layout"]()).prefix(texts, image_codes(len(texts), seed))


def tensors(prefix: Prefix) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, positions and modality of a prefix."""
    return torch.as_tensor(prefix.ids), torch.as_tensor(prefix.positions), torch.as_tensor(prefix.modality)


def images(seed: int = 0) -> dict[str, np.ndarray]:
    """Camera images of the sizes that the bundle wants."""
    rng = np.random.default_rng(seed)
    return {v.name: rng.integers(0, 256, (v.height, v.width, 3), dtype=np.uint8) for v in VIEWS}


def sequences(episodes: int = 8, steps: int = 6, seed: int = 0) -> Sequences:
    """Training data of random images and smooth actions, by way of the real shard."""
    count = episodes * steps
    rng = np.random.default_rng(seed)
    frames = episodes * (steps + 1)
    views = {v.name: rng.integers(0, VISUAL, (frames, v.codes)).astype(np.uint16) for v in VIEWS}
    episode = np.repeat(np.arange(episodes), steps)
    current = np.arange(count) + episode  # one frame more than steps per episode
    values = chunks(count, seed)
    codes = fast().encode_batch(values, clip=True)
    actions = np.array([np.pad(c, (0, ACTION_SLOTS - 1 - len(c)), constant_values=-1) for c in codes])
    shard = TokenShard(
        views, current.astype(np.int32), (current + 1).astype(np.int32), actions.astype(np.int16),
        values.astype(np.float32), (episode % len(SENTENCES)).astype(np.int16), episode.astype(np.int32),
        rng.uniform(-0.3, 0.3, (count, 4, 3)).astype(np.float32), (episode % 3).astype(np.int8), list(SENTENCES),
    )  # fmt: skip
    return Sequences.assemble(shard, layout(), text(), held_out=0.2)


def sees(kind: str, query: int, key: int, key_not_later: bool) -> bool:
    """The attention table once more, as prose in code, for tests to compare with."""
    if Modality.PAD in (query, key):
        return query == key
    if kind == "bidirectional":
        return True
    if kind == "causal":
        return key_not_later
    if query == Modality.TEXT:
        return key == Modality.TEXT and key_not_later
    if kind == "merged":
        return True
    return key <= query  # hybrid: text, current, future, action, each sees its own and what came before
