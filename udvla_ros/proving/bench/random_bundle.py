"""Whole bundles of random weights, to time a size before anybody trains it. Their actions mean nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from transformers import Emu3VQVAE

from udvla_ros.errors import ConfigError
from udvla_ros.model.backbone import Backbone
from udvla_ros.model.checkpoint import ActionConvention, Bundle, BundleConfig
from udvla_ros.model.runtime import DTYPES
from udvla_ros.proving.bench.cost import Geometry
from udvla_ros.resources import find
from udvla_ros.tokens.action import FastTokenizer
from udvla_ros.tokens.layout import Layout, View, Vocabulary
from udvla_ros.tokens.normalize import QuantileNormalizer
from udvla_ros.tokens.text import TextTokenizer
from udvla_ros.tokens.vision import VisionTokenizer, small_config

SENTENCES = ("touch the red cube", "pick up the green cube", "push the blue cube")
DIGITS = {"*": 9, **{str(digit): 15 + digit for digit in range(10)}}  # ids of Emu3's text tokeniser


@dataclass(frozen=True)
class Sizes:
    """Lengths of a sequence: pixels (height, width) by view, one code for 8 x 8; ``headers``: Emu3's, with the size."""

    views: dict[str, tuple[int, int]]
    text_slots: int
    action_slots: int
    chunk: int
    headers: bool = True


@dataclass(frozen=True)
class Size:
    """A decoder: a bundle's ``backbone`` section, whether it has the published 184,622 ids, and its usual layout."""

    backbone: dict[str, Any] = field(default_factory=dict)
    published: bool = False
    layout: str = "calvin"


def layouts() -> dict[str, Sizes]:
    """Return the sequences by name: ``nano`` is the shipped bundle's, the others those of the published settings.

    What is not published is ours: the length of the instruction, and that UR5e's wrist camera has 256 x 256 pixels too.
    """
    nano = yaml.safe_load(find("config/training/nano.yaml").read_text())
    both = {"static": (200, 200), "wrist": (80, 80)}
    return {
        "nano": Sizes(
            {"front": (48, 64), "wrist": (32, 32)},
            nano["text_slots"],
            nano["action_slots"],
            nano["action"]["chunk"],
            headers=False,
        ),
        "calvin": Sizes(both, 13, 69, 10),
        "libero": Sizes(both, 30, 69, 10),
        "ur5e-256": Sizes({"static": (256, 256), "wrist": (256, 256)}, 16, 64, 5),
    }


def sizes() -> dict[str, Size]:
    """Return the decoders by name.

    ``nano`` is the decoder of ``config/training/nano.yaml``; ``small`` has 60 M parameters, ``base`` 360 M, most of
    them in the rows of the whole vocabulary; ``emu3-8b`` is the published model's.
    """
    nano = yaml.safe_load(find("config/training/nano.yaml").read_text())
    return {
        "nano": Size(nano["backbone"], layout="nano"),
        "small": Size(_decoder(640, 1920, 12, 10, 5)),
        "base": Size(_decoder(768, 2048, 12, 12, 4), published=True),
        "emu3-8b": Size(
            {**_decoder(4096, 14336, 32, 32, 8), "rope_theta": 1_000_000.0, "max_position_embeddings": 9216},
            published=True,
        ),
    }


def _decoder(hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": 8192,
    }


def geometry(name: str) -> Geometry:
    """Return the shape of a decoder with the published vocabulary, without building it."""
    return Geometry.of(_known(name, sizes(), "backbone").backbone, Vocabulary.published().size)


def published_layout(name: str) -> Layout:
    """Return a sequence over the published vocabulary, without building a bundle."""
    chosen = _known(name, layouts(), "layout")
    return _layout(chosen, Vocabulary.published(), {view: (h // 8, w // 8) for view, (h, w) in chosen.views.items()})


def random_bundle(
    name: str,
    layout: str | None = None,
    attention: str = "hybrid",
    seed: int = 0,
    dtype: str = "float32",
    device: torch.device | None = None,
) -> Bundle:
    """Build one in memory, named as what it is.

    Raises:
        ConfigError: there is no such size or layout, or no memory for it.
    """
    size = _known(name, sizes(), "backbone")
    layout = layout or size.layout
    lengths = _known(layout, layouts(), "layout")
    if size.published and (device is None or device.type == "cpu"):
        _check_memory(name, dtype)
    torch.manual_seed(seed)
    vision = VisionTokenizer(Emu3VQVAE(small_config(codes=32768 if size.published else 512)), device or "cpu")
    text = TextTokenizer.train(SENTENCES, size_limit=64)
    fast = FastTokenizer.fit(_smooth_chunks(lengths.chunk, seed), 1024 if size.published else 512, scale=8)
    if size.published:
        vocabulary = Vocabulary.published(fast.vocab_size)
    else:
        vocabulary = Vocabulary.compact(max(text.vocab_size, 32), vision.codebook_size, fast.vocab_size)
    grids = {view: vision.grid(h, w) for view, (h, w) in lengths.views.items()}
    sequence = _layout(lengths, vocabulary, grids)
    backbone = {"attention_dropout": 0.0, **size.backbone}
    label = f"random-{name}" + (f"-{layout}" if layout != size.layout or name != layout else "")
    config = BundleConfig(label, backbone, sequence, attention, ActionConvention(chunk=lengths.chunk))
    normalizer = QuantileNormalizer([-1.0] * 7, [1.0] * 7)
    decoder = Backbone(backbone, sequence, attention, device=device, dtype=DTYPES[dtype])
    return Bundle(config, decoder.eval(), vision, text, fast, normalizer)


def _layout(lengths: Sizes, vocabulary: Vocabulary, grids: dict[str, tuple[int, int]]) -> Layout:
    views = tuple(
        View(view, h, w, *grids[view], header=_header(*grids[view]) if lengths.headers else ())
        for view, (h, w) in lengths.views.items()
    )
    return Layout(vocabulary, views, lengths.text_slots, lengths.action_slots)


def _header(rows: int, cols: int) -> tuple[int, ...]:
    return tuple(DIGITS[character] for character in f"1*{rows}*{cols}")


def _known(name: str, known: dict[str, Any], what: str) -> Any:
    if name not in known:
        raise ConfigError(f"unknown {what} '{name}'; known: {', '.join(known)}")
    return known[name]


def _check_memory(name: str, dtype: str) -> None:
    """Refuse before the machine is out of memory: weights and a loop's logits."""
    needed = geometry(name).parameters * DTYPES[dtype].itemsize + 4 * 2**30
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return
    free = next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")), None)
    if free is not None and free < needed:
        raise ConfigError(
            f"backbone '{name}' in {dtype} needs about {needed / 2**30:.0f} GiB and {free / 2**30:.0f} GiB are free; "
            "take a smaller one, --dtype bfloat16, or --plan gpu, which computes instead"
        )


def _smooth_chunks(chunk: int, seed: int) -> np.ndarray:
    """Straight, slightly noisy motions ``[N, K, 7]`` in [-1, 1], something for FAST to compress."""
    rng = np.random.default_rng(seed)
    start, slope = rng.uniform(-0.5, 0.5, (2, 600, 1, 7))
    values = start + slope * np.linspace(0, 1, chunk)[:, None] + rng.normal(0, 0.03, (600, chunk, 7))
    return np.clip(values, -1, 1)
