"""Which FAST tokeniser is this? The published ones have the same shape, and the wrong one fails in silence.

All three have 1,024 codes and two of them the same quantiser: only the bytes of ``tokenizer.json`` tell them apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from udvla_ros.errors import BundleError, TokenError
from udvla_ros.model.checkpoint import sha256
from udvla_ros.tokens.action import TOKENIZER, FastTokenizer


@dataclass(frozen=True)
class Published:
    """A published FAST tokeniser: its name, the data set it was fitted on, steps per chunk."""

    name: str
    data: str
    chunk: int


# sha256 of tokenizer.json, as published in OpenHelix-Team/Unified-Diffusion-VLA (March 2026).
KNOWN = {
    "04ccd7e8aca912c04727c410066f33a3d7a595261ede907e25006051efb06922":
        Published("fast_calvin_abcd_a10_s50", "calvin", 10),
    "b2e9d672790a5a0b4068ff4db8fa763a924cf9821ee4d2d138892d71123bb70e":
        Published("fast_calvin_abcd_a5_s50", "calvin", 5),
    "0c57ff8bdca56b5d469dc36e144d3b40ac88d251ef81affad881d27a5ae3beca":
        Published("fast_libero_all_t10_s50", "libero", 10),
}  # fmt: skip


def known(folder: Path) -> Published | None:
    """Return the published tokeniser that lies in a folder; None: it is none of them."""
    path = folder / TOKENIZER
    return KNOWN.get(sha256(path)) if path.is_file() else None


def check_fast(folder: Path, data: str, chunk: int, dimensions: int = 7) -> tuple[FastTokenizer, str]:
    """Load a FAST tokeniser for a data set; return it with a line that says what it is.

    Args:
        folder: ``tokenizer.json`` and ``processor_config.json``.
        data: ``calvin``, ``libero``, ``bridge`` or another name: whose actions it is to encode.
        chunk, dimensions: of the actions.

    Raises:
        BundleError: it is a published one of other data or chunks, or it cannot say what the normaliser gives.
    """
    found = known(folder)
    if found is not None and (found.data, found.chunk) != (data, chunk):
        raise BundleError(
            f"{folder} is {found.name}, fitted on {found.data} in chunks of {found.chunk}, and the actions are "
            f"{data}'s "
            f"in chunks of {chunk}: its codes would decode to other motions without an error; give the matching one"
        )
    fast = FastTokenizer.load(folder, chunk, dimensions)
    cover(fast, folder)
    about = f"min_token {fast.min_token}, max_token {fast.max_token}"
    if found is not None:
        return fast, f"FAST is {found.name} ({about})"
    return fast, (
        f"FAST in {folder} is none of the published ones ({about}): it can say all that the normaliser gives, but "
        "nothing shows that the weights were trained with it"
    )


def cover(fast: FastTokenizer, folder: Path) -> None:
    """Encode and decode chunks at the ends of the normaliser's range, in each dimension.

    Raises:
        BundleError: a coefficient falls outside what the tokeniser holds, or comes back as another.
    """
    extremes = []
    for dimension in range(fast.dimensions):
        for value in (-1.0, 1.0):
            chunk = np.zeros((fast.chunk, fast.dimensions))
            chunk[:, dimension] = value
            extremes.append(chunk)
    bound = np.sqrt(fast.chunk) * 0.5 / fast.scale + 1e-5
    for chunk in extremes:
        try:
            back = fast.decode(fast.encode(chunk))
        except TokenError as error:
            raise BundleError(
                f"{folder} cannot say a chunk of {fast.chunk} steps at the end of the normaliser's range ({error}): "
                "it was fitted on other chunks"
            ) from None
        if np.abs(back - chunk).max() > bound:
            raise BundleError(
                f"{folder} decodes another chunk than it encoded: its two files are of different tokenisers"
            )
