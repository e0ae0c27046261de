"""A decoder's weights on disk: safetensors, one file or several with an index, under the published names.

Reading takes no more memory than the weights themselves: they are made without memory, each is filled a block at a
time from a mapping of the file that is let go at once, and is rounded to 8 bits, if so wished, before the next one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from udvla_ros.errors import BundleError
from udvla_ros.model.decoder import Decoder, published
from udvla_ros.model.products import Matrix, Rounded

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
BLOCK = 1 << 25  # bytes that are read at a time
SHARD = 5 * 10**9  # bytes of one file


def write(decoder: Decoder, folder: Path, limit: int = SHARD) -> None:
    """Write the weights to ``folder``, in files of at most ``limit`` bytes as far as single weights allow.

    Raises:
        BundleError: the weights were rounded.
    """
    if decoder.rounded:
        raise BundleError("weights that were rounded to 8 bits cannot be saved: load the bundle with weights: float")
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, part in named(decoder):
        if shards[-1] and size + part.nbytes > limit:
            shards.append({})
            size = 0
        shards[-1][name] = part
        size += part.nbytes
    for old in [*folder.glob("model-*-of-*.safetensors"), folder / WEIGHTS, folder / INDEX]:
        old.unlink(missing_ok=True)
    if len(shards) == 1:
        save_file(shards[0], folder / WEIGHTS, metadata={"format": "pt"})
        return
    where: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(shard, file)
    total = sum(part.nbytes for shard in shards for part in shard.values())
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": where}, indent=1) + "\n")


def named(decoder: Decoder) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights under their published names: rows of the decoder's own memory."""
    ours = dict(decoder.named_parameters())
    for name, parts in published(decoder.shape):
        begin = 0
        for theirs, rows in parts:
            yield theirs, ours[name].detach()[begin : begin + rows]
            begin += rows


def read(decoder: Decoder, folder: Path, device: torch.device, dtype: torch.dtype, rounded: str | None = None) -> None:
    """Give a decoder the weights in ``folder``, on ``device`` and in ``dtype``; ``rounded``: int8 or fp8.

    Raises:
        BundleError: a file or a weight is missing, cannot be read, or has another shape than the decoder.
    """
    files = _files(folder)
    expected = [(name, parts) for name, parts in published(decoder.shape)]
    names = [theirs for _, parts in expected for theirs, _ in parts]
    missing, extra = sorted(set(names) - set(files)), sorted(set(files) - set(names))
    if missing or extra:
        what = f"lacks {missing[0]}" if missing else f"has {extra[0]} in excess"
        raise BundleError(f"{folder / WEIGHTS} does not fit config.json: it {what}")
    for name, parts in expected:
        owner = decoder.get_submodule(name.rpartition(".")[0])
        leaf = name.rpartition(".")[2]
        shape = getattr(owner, leaf).shape
        whole = torch.empty(shape, dtype=dtype, device=device)
        begin = 0
        for theirs, rows in parts:
            _fill(whole[begin : begin + rows], files[theirs], theirs)
            begin += rows
        if rounded and isinstance(owner, Matrix):
            parent, _, child = name.removesuffix(".weight").rpartition(".")
            setattr(decoder.get_submodule(parent), child, Rounded(whole, rounded))
        else:
            setattr(owner, leaf, nn.Parameter(whole))


def _files(folder: Path) -> dict[str, Path]:
    """Return where each weight is."""
    index = folder / INDEX
    if index.is_file():
        try:
            where = json.loads(index.read_text())["weight_map"]
            return {name: folder / Path(file).name for name, file in where.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BundleError(f"{index} is no index of weights: {error}; copy it again") from error
    path = folder / WEIGHTS
    try:
        with safe_open(path, "pt") as file:
            return dict.fromkeys(file.keys(), path)
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error


def _fill(target: Tensor, path: Path, name: str) -> None:
    try:
        with safe_open(path, "pt") as file:
            shape = tuple(file.get_slice(name).get_shape())
        if shape != tuple(target.shape):
            raise BundleError(
                f"{path} does not fit config.json: {name} is {list(shape)} there and {list(target.shape)} here"
            )
        step = max(1, BLOCK // max(1, target[:1].numel() * 4))
        for begin in range(0, len(target), step):
            with safe_open(path, "pt") as file:  # opened anew: what was read stays in memory while it is open
                target[begin : begin + step].copy_(file.get_slice(name)[begin : begin + step])
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> BundleError:
    return BundleError(f"{path} cannot be read: {' '.join(str(error).split())}; copy it again")
