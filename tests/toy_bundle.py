"""A bundle with random weights that fits the simulated arm: what it does means nothing, but all of it runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import Emu3VQVAE

from udvla_ros.model.backbone import Backbone
from udvla_ros.model.checkpoint import ActionConvention, Bundle, BundleConfig
from udvla_ros.sim.phrasings import NOUNS, PHRASINGS, WAYS
from udvla_ros.sim.scene import COLOURS
from udvla_ros.tokens.action import FastTokenizer
from udvla_ros.tokens.layout import Layout, View, Vocabulary
from udvla_ros.tokens.normalize import QuantileNormalizer
from udvla_ros.tokens.text import TextTokenizer
from udvla_ros.tokens.vision import VisionTokenizer, small_config

BACKBONE = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "rope_theta": 10000.0, "attention_dropout": 0.0,
    "hidden_act": "silu", "initializer_range": 0.4,
}  # fmt: skip
VIEWS = (View("front", 12, 16, 3, 4), View("wrist", 8, 8, 2, 2))
CODES, CHUNK = 16, 8


def _chunks(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    values = np.zeros((count, CHUNK, 7))
    values[..., :3] = rng.uniform(-0.6, 0.6, (count, 1, 3)) * np.linspace(1.0, 0.3, CHUNK)[:, None]
    values[..., 6] = rng.choice([-1.0, 1.0], (count, 1))
    return values


def saved(folder: Path) -> Path:
    """Write the bundle to a folder and return it."""
    torch.manual_seed(0)
    vision = VisionTokenizer(Emu3VQVAE(small_config(base=32, multipliers=(1, 1, 1), codes=CODES, width=4)))
    sentences = [phrase.format(cube=f"{c} {noun}", way=way) for phrases in PHRASINGS.values() for phrase in phrases
                 for c in COLOURS for noun in NOUNS for ways in WAYS.values() for way in ways]  # fmt: skip
    text = TextTokenizer.train(sentences, size_limit=80, spare=4)
    fast = FastTokenizer.fit(_chunks(300), 40, scale=3)
    layout = Layout(Vocabulary.compact(text.vocab_size, CODES, fast.vocab_size), VIEWS, 12, 60)
    reach = np.array([0.02] * 3 + [0.05] * 3 + [1.0])
    config = BundleConfig("toy-random", BACKBONE, layout, "hybrid", ActionConvention(), {"steps": 3})
    backbone = Backbone(BACKBONE, layout, "hybrid").eval()
    return Bundle(config, backbone, vision, text, fast, QuantileNormalizer(-reach, reach)).save(folder)
