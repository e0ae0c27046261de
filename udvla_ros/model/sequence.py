"""Where the rows of a forward stand and what they may look at, prepared once per sentence, on the device.

Masks are worked out on the host, from what the layout knows there, so that no forward waits for the device. Where
the rows of a span see one range of keys each (images in front of an action, all of one sentence), the attention
gets that range and no mask at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

MOST = 3  # products that one attention may be divided into to do without a mask


@dataclass(frozen=True, eq=False)
class Part:
    """Rows of a span, the keys they look at, and what is added to their scores: None where all of them are seen."""

    rows: slice
    keys: slice
    bias: Tensor | None = None  # [B or 1, 1, groups * rows, keys]


@dataclass(eq=False)
class Span:
    """Rows ``[first, last)`` of one forward.

    ``cos``, ``sin`` ``[B, n, 1, d]``: their rotation, the first half of ``sin`` negated; ``mask`` ``[B or 1, n, last]``
    bool, on the device.
    """

    first: int
    last: int
    cos: Tensor
    sin: Tensor
    parts: tuple[Part, ...]
    mask: Tensor | None = None

    @property
    def plan(self) -> tuple[tuple[int, int, int, int, bool], ...]:
        """What decides the operations of a forward over it, and nothing of what they compute with."""
        return tuple((p.rows.start, p.rows.stop, p.keys.start, p.keys.stop, p.bias is None) for p in self.parts)


@dataclass(eq=False)
class Sequence:
    """Positions and mask of whole sequences, and the spans that were cut out of them so far.

    ``allowed`` ``[B or 1, L, L]`` is the mask, on the host; ``groups``: query heads per key head.
    """

    cos: Tensor
    sin: Tensor
    allowed: np.ndarray
    groups: int
    spans: dict[tuple[int, int], Span] = field(default_factory=dict)

    def span(self, first: int, last: int) -> Span:
        """Return positions ``[first, last)``; they attend to what stands before ``last``."""
        found = self.spans.get((first, last))
        if found is None:
            allowed = self.allowed[:, first:last, :last]
            mask = torch.as_tensor(allowed, device=self.cos.device)
            parts = ranges(allowed)
            if parts is None:
                parts = (Part(slice(0, last - first), slice(0, last), bias(mask, self.groups, self.cos.dtype)),)
            rows = slice(first, last)
            found = self.spans[first, last] = Span(first, last, self.cos[:, rows], self.sin[:, rows], parts, mask)
        return found


def ranges(allowed: np.ndarray) -> tuple[Part, ...] | None:
    """Return parts without a bias for the mask ``[B, n, K]``; None where it takes more than MOST, or cannot be."""
    first = allowed[0]
    if not len(first) or (allowed != first).any():
        return None
    starts = np.concatenate([[0], np.flatnonzero((first[1:] != first[:-1]).any(1)) + 1])
    if len(starts) > MOST:
        return None
    parts = []
    for begin, end in zip(starts, [*starts[1:], len(first)], strict=True):
        keys = np.flatnonzero(first[begin])
        if not len(keys) or keys[-1] - keys[0] + 1 != len(keys):
            return None
        parts.append(Part(slice(int(begin), int(end)), slice(int(keys[0]), int(keys[-1]) + 1)))
    return tuple(parts)


def bias(mask: Tensor, groups: int, dtype: torch.dtype) -> Tensor:
    """Return what a boolean mask ``[B, n, K]`` adds to scores: ``[B, 1, groups * n, K]``."""
    added = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, float("-inf"))[:, None]
    return added.repeat(1, 1, groups, 1) if groups > 1 else added


def rows_of(values: Tensor, index: Tensor) -> Tensor:
    """Return rows ``index`` ``[B, m]`` of ``[B or 1, n, ...]``."""
    if len(values) == 1 and len(index) == 1:
        return values[:, index[0]]
    shape = (*index.shape, *values.shape[2:])
    where = index.view(*index.shape, *[1] * (values.ndim - 2)).expand(shape)
    return values.expand(len(index), *values.shape[1:]).gather(1, where)
