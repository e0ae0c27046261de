"""What a bundle needs of this machine's memory, by number type, and where it fits: reckoned from its files alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from udvla_ros.errors import BundleError
from udvla_ros.model.checkpoint import BundleConfig
from udvla_ros.model.runtime import DTYPES
from udvla_ros.released.tensors import read_weights

ACTIVATIONS = 1.15  # of weights and cache: activations of one sequence, the kernels' work space, fragmentation


@dataclass(frozen=True)
class Place:
    """A memory to load into, with what of it is free, in bytes."""

    name: str
    free: int


@dataclass(frozen=True)
class Need:
    """Bytes of a bundle in one number type."""

    dtype: str
    weights: int
    cache: int
    vision: int

    @property
    def total(self) -> int:
        """With room for activations."""
        return int(ACTIVATIONS * (self.weights + self.cache)) + self.vision


def needs(folder: Path, config: BundleConfig) -> list[Need]:
    """Return what the bundle needs in each number type. Raises BundleError where a file is missing or damaged."""
    count = sum(math.prod(stored.shape) for stored in read_weights(folder).values())
    vision = sum(s.count * s.dtype.itemsize for s in read_weights(folder / "vision").values())
    b, layout = config.backbone, config.layout
    width = b["hidden_size"] // b["num_attention_heads"] * b["num_key_value_heads"]
    slots = (layout.prefix_length + layout.suffix_length) * 2 * b["num_hidden_layers"] * width
    return [Need(name, count * d.itemsize, slots * d.itemsize, vision) for name, d in DTYPES.items()]


def places() -> Iterator[Place]:
    """Yield this machine's memories: its GPUs, then its own."""
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            yield Place(f"cuda:{index} ({torch.cuda.get_device_name(index)})", torch.cuda.mem_get_info(index)[0])
    try:
        rows = Path("/proc/meminfo").read_text().splitlines()
        yield Place("cpu", next(1024 * int(row.split()[1]) for row in rows if row.startswith("MemAvailable")))
    except (OSError, StopIteration):
        return


def load_plan(folder: Path) -> list[str]:
    """Return the plan in lines.

    Raises:
        BundleError: it is no bundle, or a file is missing.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise BundleError(f"{folder} holds no config.json; give the folder of a bundle")
    config = BundleConfig.from_json(path.read_text(), str(path))
    lines = [f"bundle '{config.name}': {config.layout.prefix_length} + {config.layout.suffix_length} tokens"]
    there = list(places())
    for need in needs(folder, config):
        fits = [place.name for place in there if need.total <= place.free]
        lines.append(
            f"  {need.dtype}: weights {_gb(need.weights)}, cache {_gb(need.cache)}, vision {_gb(need.vision)}; in all "
            f"about {_gb(need.total)}: " + (f"fits {', '.join(fits)}" if fits else "fits nowhere here")
        )
    lines += [f"  free on {place.name}: {_gb(place.free)}" for place in there]
    return lines


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
