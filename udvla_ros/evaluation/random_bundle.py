"""Whole bundles of random weights, to time a size before anybody trains it. Their actions mean nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import yaml
from transformers import Emu3VQVAE

from udvla_ros.errors import ConfigError
from udvla_ros.model.backbone import Backbone
from udvla_ros.model.checkpoint import ActionConvention, Bundle, BundleConfig
from udvla_ros.resources import find
from udvla_ros.tokens.action import FastTokenizer
from udvla_ros.tokens.layout import Layout, View, Vocabulary
from udvla_ros.tokens.normalize import QuantileNormalizer
from udvla_ros.tokens.text import TextTokenizer
from udvla_ros.tokens.vision import VisionTokenizer, small_config

SENTENCES = ("touch the red cube", "pick up the green cube", "push the blue cube")


@dataclass(frozen=True)
class Size:
    """A geometry: the decoder's width and depth (keywords of ``Emu3TextConfig``) and the sequence's lengths."""

    views: dict[str, tuple[int, int]]  # pixels (height, width); one code stands for 8 x 8
    text_slots: int
    action_slots: int
    chunk: int
    backbone: dict[str, Any] = field(default_factory=dict)


def sizes() -> dict[str, Size]:
    """Return the sizes by name.

    ``nano`` is the decoder of ``config/training/nano.yaml``; ``small`` has the sequence of the published
    CALVIN model (25x25 + 10x10 codes per set of images, 70 action tokens) before a decoder of 39 M parameters.
    """
    nano = yaml.safe_load(find("config/training/nano.yaml").read_text())
    action = nano["action"]
    small = {
        "hidden_size": 512,
        "intermediate_size": 1536,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "max_position_embeddings": 2048,
    }
    return {
        "nano": Size(
            {"front": (48, 64), "wrist": (32, 32)}, nano["text_slots"], nano["action_slots"], action["chunk"],
            nano["backbone"],
        ),
        "small": Size({"front": (200, 200), "wrist": (80, 80)}, 30, 69, 10, small),
    }  # fmt: skip


def random_bundle(name: str, attention: str = "hybrid", seed: int = 0) -> Bundle:
    """Build one in memory, named as what it is.

    Raises:
        ConfigError: there is no such size.
    """
    known = sizes()
    if name not in known:
        raise ConfigError(f"unknown backbone '{name}'; known: {', '.join(known)}")
    size = known[name]
    torch.manual_seed(seed)
    vision = VisionTokenizer(Emu3VQVAE(small_config()))
    text = TextTokenizer.train(SENTENCES, size_limit=64)
    fast = FastTokenizer.fit(_smooth_chunks(size.chunk, seed), 512, scale=8)
    vocabulary = Vocabulary.compact(text.vocab_size, vision.codebook_size, fast.vocab_size)
    views = tuple(View(view, h, w, *vision.grid(h, w)) for view, (h, w) in size.views.items())
    layout = Layout(vocabulary, views, size.text_slots, size.action_slots)
    backbone = {"attention_dropout": 0.0, **size.backbone}
    config = BundleConfig(f"random-{name}", backbone, layout, attention, ActionConvention(chunk=size.chunk))
    normalizer = QuantileNormalizer([-1.0] * 7, [1.0] * 7)
    return Bundle(config, Backbone(backbone, layout, attention).eval(), vision, text, fast, normalizer)


def _smooth_chunks(chunk: int, seed: int) -> np.ndarray:
    """Straight, slightly noisy motions ``[N, K, 7]`` in [-1, 1], something for FAST to compress."""
    rng = np.random.default_rng(seed)
    start, slope = rng.uniform(-0.5, 0.5, (2, 600, 1, 7))
    values = start + slope * np.linspace(0, 1, chunk)[:, None] + rng.normal(0, 0.03, (600, chunk, 7))
    return np.clip(values, -1, 1)
