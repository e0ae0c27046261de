"""From downloaded files to a bundle, tensor by tensor.

What is converted is noted in ``convert.json`` with its hash, so that a conversion that was cut short goes on where it
stood; ``config.json`` comes last and makes the folder a bundle.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from udvla_ros.errors import BundleError, ConfigError
from udvla_ros.model.checkpoint import PARTS, WEIGHTS, BundleConfig, sha256
from udvla_ros.released import decoder, vision
from udvla_ros.released.fast import check_fast, known
from udvla_ros.released.settings import Setting, setting_of
from udvla_ros.released.tensors import Stored, read_weights, write_safetensors
from udvla_ros.released.text import read_text
from udvla_ros.tokens.layout import Layout, View, Vocabulary, emu3_header
from udvla_ros.tokens.normalize import QuantileNormalizer
from udvla_ros.tokens.text import TextTokenizer

SHARD = 5_000_000_000  # bytes
JOURNAL = "convert.json"
INDEX = f"{WEIGHTS}.index.json"
# How the released code decodes: docs/benchmarks.md.
AS_PUBLISHED = {
    "sampler": "published", "schedule": "public", "temperature": 1.0, "masked_frames": True, "drawn_behind": True,
}  # fmt: skip
Progress = Callable[[str, int, int], object]  # what, bytes done, bytes in all


@dataclass(frozen=True)
class Request:
    """What is to be converted.

    Attributes:
        released, vision, fast, norm: folders of the decoder with its text tokeniser, of the vision tokeniser, of the
            FAST tokeniser, and of ``norm_stats.json`` (or the file).
        out: folder of the bundle.
        setting: ``calvin``, ``libero`` or ``bridge``; None: what the normaliser's data says.
        attention: ``merged``, under which the released weights were trained, or that of a fine-tuning of one's own.
        dtype: of the decoder's floats; None: as they are stored.
        shard: bytes after which another file of weights is begun.
        vocabulary: ids of the checkpoint.
    """

    released: Path
    vision: Path
    fast: Path
    norm: Path
    out: Path
    setting: str | None = None
    attention: str = "merged"
    dtype: torch.dtype | None = None
    shard: int = SHARD
    vocabulary: Vocabulary = field(default_factory=lambda: Vocabulary.published())


def convert(request: Request, progress: Progress = lambda what, done, total: None) -> tuple[BundleConfig, list[str]]:
    """Write the bundle; return its configuration and what is worth saying about it.

    All that can be checked without reading the weights is checked first.

    Raises:
        BundleError: a file is missing, damaged, or does not belong to the others.
        ConfigError: the setting is unknown, or the folder holds another conversion.
    """
    out = request.out
    if (out / "config.json").exists():
        raise ConfigError(f"{out} holds a bundle already; name another --out, or remove it")
    data = norm_data(request.norm)
    setting = setting_of(request.setting, data)
    vocabulary = request.vocabulary
    config = decoder.read_config(request.released, vocabulary)
    published = known(request.fast)
    if published is not None and published.data == setting.data:
        setting = replace(setting, action=replace(setting.action, chunk=published.chunk))
    fast, about_fast = check_fast(request.fast, setting.data, setting.action.chunk, setting.action.dimensions)
    if fast.vocab_size != vocabulary.action_size:
        raise BundleError(
            f"{request.fast} has {fast.vocab_size} codes where the checkpoint has ids for {vocabulary.action_size}"
        )
    normalizer = QuantileNormalizer.load(request.norm)
    text = read_text(request.released, vocabulary)
    weights = decoder.renamed(read_weights(request.released))
    wanted = decoder.wanted(config, vocabulary)
    vision.compare(request.released, weights.values(), wanted, "decoder")
    tensors = [weights[name] for name in wanted]

    out.mkdir(parents=True, exist_ok=True)
    journal = Journal(out / JOURNAL, fingerprint(request, tensors))
    if not journal.has("vision/model.safetensors", out):
        size = sum(stored.count * stored.dtype.itemsize for stored in read_weights(request.vision).values())
        vision.convert_vision(request.vision, out / "vision", _told(progress, "vision", size))
        journal.note("vision/model.safetensors", sha256(out / "vision" / WEIGHTS))
    files = write_shards(tensors, request, journal, progress)
    text.save(out / "text")
    fast.save(out / "action")
    normalizer.save(out / "action", data)
    layout = layout_of(setting, out / "vision", vocabulary, text)
    parts = {name: sha256(out / name) for name in (*PARTS, INDEX) if name not in files and (out / name).is_file()}
    bundle = BundleConfig(
        f"udvla-{setting.data}", config, layout, request.attention, setting.action,
        {**AS_PUBLISHED, "steps": setting.steps}, {**parts, **files}, images=setting.images,
    )  # fmt: skip
    (out / "README.md").write_text(card(request, bundle, about_fast))
    (out / "config.json").write_text(bundle.to_json())
    journal.path.unlink()
    return bundle, [about_fast]


def norm_data(path: Path) -> str:
    """Return the name of the data in a ``norm_stats.json``. Raises BundleError."""
    file = path if path.suffix == ".json" else path / "norm_stats.json"
    QuantileNormalizer.load(file)  # says in one line what is wrong with it
    return str(next(iter(json.loads(file.read_text())["norm_stats"])))


def layout_of(setting: Setting, folder: Path, vocabulary: Vocabulary, text: TextTokenizer) -> Layout:
    """Return the sequence of a setting over a vision tokeniser. Raises BundleError where their sizes do not fit."""
    config = vision.vision_config(json.loads((folder / "config.json").read_text()))
    if config.codebook_size != vocabulary.visual_size:
        raise BundleError(
            f"the vision tokeniser has {config.codebook_size} codes; the checkpoint has {vocabulary.visual_size}"
        )
    factor = 2 ** (len(config.channel_multiplier) - 1)
    grids = {name: (height // factor, width // factor) for name, (height, width) in setting.views.items()}
    views = tuple(
        View(name, *setting.views[name], *grid, header=emu3_header(*grid, text.encode)) for name, grid in grids.items()
    )
    return Layout(vocabulary, views, setting.text_slots, setting.action_slots)


class Journal:
    """What of a conversion is done: file name to sha256. Another conversion's is not taken up."""

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path = path
        self.values: dict[str, Any] = {"of": fingerprint, "done": {}}
        if path.is_file():
            try:
                kept = json.loads(path.read_text())
            except ValueError:
                kept = {}
            if kept.get("of") != fingerprint:
                raise ConfigError(
                    f"{path.parent} holds the beginning of another conversion; name another --out, or remove it"
                )
            self.values = kept

    def has(self, name: str, folder: Path) -> bool:
        """Whether a file is done and still what it was."""
        done = self.values["done"].get(name)
        return done is not None and (folder / name).is_file() and sha256(folder / name) == done

    def note(self, name: str, digest: str) -> None:
        """Write down that a file is done."""
        self.values["done"][name] = digest
        temporary = self.path.with_suffix(".part")
        temporary.write_text(json.dumps(self.values, indent=1) + "\n")
        temporary.replace(self.path)


def fingerprint(request: Request, tensors: list[Stored]) -> str:
    """Return what two runs of one conversion have in common: files, sizes, options."""
    files = sorted({stored.file for stored in tensors})
    rows = [f"{file.resolve()} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files]
    return "; ".join([*rows, str(request.vision.resolve()), str(request.dtype), str(request.shard)])


def shards(tensors: list[Stored], dtype: torch.dtype | None, largest: int) -> Iterator[list[Stored]]:
    """Yield the tensors in files of at most ``largest`` bytes, a larger tensor by itself."""
    part: list[Stored] = []
    size = 0
    for stored in tensors:
        item = stored.dtype if dtype is None or not stored.dtype.is_floating_point else dtype
        bytes_of = stored.count * item.itemsize
        if part and size + bytes_of > largest:
            yield part
            part, size = [], 0
        part.append(stored)
        size += bytes_of
    yield part


def write_shards(tensors: list[Stored], request: Request, journal: Journal, progress: Progress) -> dict[str, str]:
    """Write the decoder's weights to one file, or to several with their index; return the files' hashes."""
    parts = list(shards(tensors, request.dtype, request.shard))
    names = [f"model-{n:05}-of-{len(parts):05}.safetensors" for n in range(1, len(parts) + 1)]
    if len(parts) == 1:
        names = [WEIGHTS]
    sizes = [sum(s.count * (request.dtype or s.dtype).itemsize for s in part) for part in parts]
    hashes: dict[str, str] = {}
    for number, (name, part) in enumerate(zip(names, parts, strict=True)):
        if not journal.has(name, request.out):
            told = _told(progress, "decoder", sum(sizes), sum(sizes[:number]))
            journal.note(name, write_safetensors(request.out / name, part, request.dtype, told))
        hashes[name] = journal.values["done"][name]
    if len(parts) > 1:
        where = {stored.name: name for name, part in zip(names, parts, strict=True) for stored in part}
        index = {"metadata": {"total_size": sum(sizes)}, "weight_map": where}
        (request.out / INDEX).write_text(json.dumps(index, indent=1) + "\n")
    return hashes


def _told(progress: Progress, what: str, total: int, before: int = 0) -> Callable[[int], object]:
    done = before

    def told(count: int) -> None:
        nonlocal done
        done += count
        progress(what, min(done, total), total)

    return told


def card(request: Request, bundle: BundleConfig, about_fast: str) -> str:
    """Return the model card: what it was made of."""
    rows = "\n".join(f"- {name}: `{digest}`" for name, digest in sorted(bundle.parts.items()))
    return (
        f"# {bundle.name}\n\nConverted by `udvla convert` from published weights ({request.released.name}); attention "
        f"`{bundle.attention}`. {about_fast}.\n\nNothing was measured with it by the conversion: "
        f"see docs/benchmarks.md.\n\n## sha256\n\n{rows}\n"
    )
