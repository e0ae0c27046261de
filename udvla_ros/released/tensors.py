"""Weights on disk, a block at a time: nothing of the size of a tensor is ever held, let alone a file.

Safetensors files are read by their header and ``seek``, not by a memory map, whose pages would count as ours; a
``.bin`` is opened by torch with ``weights_only`` (nothing in it is executed) and mapped.
"""

from __future__ import annotations

import hashlib
import json
import math
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from udvla_ros.errors import BundleError
from udvla_ros.model.checkpoint import one_line

BLOCK = 1 << 24  # bytes read at a time
POINTER = b"version https://git-lfs"
TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
NAMES = {dtype: name for name, dtype in TYPES.items()}
LARGEST_HEADER = 100_000_000  # bytes; the format's own limit


@dataclass(frozen=True)
class Stored:
    """One tensor in a file; ``blocks`` yields its numbers in order, flat, :data:`BLOCK` bytes at most each."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    file: Path
    blocks: Callable[[], Iterator[Tensor]]

    @property
    def count(self) -> int:
        """How many numbers."""
        return math.prod(self.shape)


def read_weights(folder: Path) -> dict[str, Stored]:
    """Return all tensors of a checkpoint: one file or shards with their index, safetensors before ``.bin``.

    Raises:
        BundleError: a file is absent, a pointer, truncated, or holds another list of tensors than the index says.
    """
    for single in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{single}.index.json"
        if index.is_file():
            return _sharded(folder, index)
        if (folder / single).is_file():
            return read_file(folder / single)
    raise BundleError(
        f"{folder} holds neither model.safetensors nor pytorch_model.bin, nor an index of shards: download the weights"
    )


def _sharded(folder: Path, index: Path) -> dict[str, Stored]:
    refuse_pointer(index)
    try:
        where: dict[str, str] = json.loads(index.read_text())["weight_map"]
        names = sorted(set(where.values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BundleError(f"{index} is no index of shards (weight_map): download it again") from None
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise BundleError(f"{folder} lacks {absent[0]} ({len(absent)} of {len(names)} shards): download it")
    found: dict[str, Stored] = {}
    for name in names:
        for tensor, stored in read_file(folder / name).items():
            if where.get(tensor) != name:
                raise BundleError(f"{folder / name} holds {tensor}, which {index.name} does not list there")
            found[tensor] = stored
    missing = sorted(set(where) - set(found))
    if missing:
        raise BundleError(
            f"{folder / where[missing[0]]} lacks {missing[0]}, which {index.name} lists: download it again"
        )
    return found


def refuse_pointer(path: Path) -> None:
    """Raise BundleError where a file is only the pointer that Git LFS leaves in place of one."""
    with path.open("rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise BundleError(f"{path} is a Git LFS pointer, not the file: run `git lfs pull` in {path.parent}")


def read_file(path: Path) -> dict[str, Stored]:
    """Return the tensors of one ``.safetensors`` or ``.bin`` file."""
    refuse_pointer(path)
    return _safetensors(path) if path.suffix == ".safetensors" else _bin(path)


def _safetensors(path: Path) -> dict[str, Stored]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(LARGEST_HEADER, size - 8):
            raise BundleError(f"{path} is no safetensors file, or its beginning is lost: download it again")
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            entries = {
                name: (TYPES[e["dtype"]], tuple(e["shape"]), *map(int, e["data_offsets"])) for name, e in header.items()
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BundleError(
                f"{path} has a header that cannot be read ({one_line(error)}): download it again"
            ) from None
    found = {}
    for name, (dtype, shape, begin, end) in entries.items():
        if end - begin != math.prod(shape) * dtype.itemsize or begin < 0:
            raise BundleError(f"{path}: {name} has {end - begin} bytes for a shape of {list(shape)}: download it again")
        if 8 + length + end > size:
            raise BundleError(
                f"{path} is truncated: it has {size} bytes and {name} ends at {8 + length + end}: download it again"
            )

        def blocks(begin: int = begin, end: int = end, dtype: torch.dtype = dtype) -> Iterator[Tensor]:
            with path.open("rb") as file:
                file.seek(8 + length + begin)
                for start in range(begin, end, BLOCK):
                    buffer = bytearray(min(BLOCK, end - start))
                    if file.readinto(buffer) != len(buffer):
                        raise BundleError(f"{path} ended while it was read: download it again")
                    yield torch.frombuffer(buffer, dtype=dtype)

        found[name] = Stored(name, shape, dtype, path, blocks)
    return found


def _bin(path: Path) -> dict[str, Stored]:
    if not zipfile.is_zipfile(path):
        raise BundleError(f"{path} is truncated or of a format before torch 1.6: download it again, or as safetensors")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError) as error:
        reason = one_line(error)[:200]
        raise BundleError(
            f"{path} is not plain weights, or is damaged ({reason}): nothing in it was run; take safetensors"
        ) from None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise BundleError(f"{path} holds more than named tensors: give the model's weights, not a training state")
    found = {}
    for name, value in state.items():

        def blocks(value: Tensor = value) -> Iterator[Tensor]:
            yield from value.detach().contiguous().view(-1).split(max(1, BLOCK // value.element_size()))

        found[name] = Stored(name, tuple(value.shape), value.dtype, path, blocks)
    return found


def write_safetensors(
    path: Path,
    tensors: Sequence[Stored],
    dtype: torch.dtype | None = None,
    told: Callable[[int], object] = lambda n: None,
) -> str:
    """Write tensors one block after the other; the file appears under its name when it is whole.

    Args:
        path: of the file.
        tensors: in this order.
        dtype: of floating-point numbers in the file; None: as they are stored.
        told: called with the number of bytes written, after each block.

    Returns:
        The file's sha256.

    Raises:
        BundleError: a number is not finite.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for stored in tensors:
        kind = _written(stored, dtype)
        size = stored.count * kind.itemsize
        header[stored.name] = {"dtype": NAMES[kind], "shape": stored.shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    temporary = path.with_suffix(".part")
    with temporary.open("wb") as file:

        def put(data: memoryview | bytes) -> None:
            file.write(data)
            digest.update(data)
            told(len(data))

        put(len(text).to_bytes(8, "little"))
        put(text)
        for stored in tensors:
            kind = _written(stored, dtype)
            for block in stored.blocks():
                if block.is_floating_point() and not torch.isfinite(block).all():
                    raise BundleError(
                        f"{stored.file}: {stored.name} holds NaN or infinity: it is damaged; download it again"
                    )
                put(memoryview(block.to(kind).contiguous().view(torch.uint8).numpy()))
    temporary.replace(path)
    return digest.hexdigest()


def _written(stored: Stored, dtype: torch.dtype | None) -> torch.dtype:
    return dtype if dtype is not None and stored.dtype.is_floating_point else stored.dtype
