"""Who may look at whom: the attention masks of UD-VLA and of its baselines.

`hybrid` (arXiv 2511.01718, section 3.2), rows are queries, columns are keys:

================  =======  =============  =============  =============
query \\ key       text     current        future         action
================  =======  =============  =============  =============
text              causal   --             --             --
current images    all      bidirectional  --             --
future images     all      all            bidirectional  --
action            all      all            all            bidirectional
================  =======  =============  =============  =============

`merged` is what the public code runs: current, future and action form one bidirectional block.
`causal` is the autoregressive and Jacobi baseline, `bidirectional` the paper's ablation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from udvla_ros.errors import BundleError
from udvla_ros.tokens.layout import Modality

# Entries of a table: a query of one modality sees of a key's modality ...
NONE, CAUSAL, ALL = 0, 1, 2


def ended(mask: Tensor, ends: Tensor) -> Tensor:
    """Let the block of `merged` end where an EOA stands, as the public code does (docs/benchmarks.md).

    What stands behind it leaves the block: nothing before looks at it, and it looks only back.

    Args:
        mask: boolean ``[B or 1, L, L]`` over whole sequences of one suffix.
        ends: ``[B, L]``, where an EOA is.
    """
    behind = (ends.cumsum(1) - ends.long()) > 0
    order = torch.arange(ends.shape[1], device=ends.device)
    back = order[None, :] <= order[:, None]
    return mask & (~behind[:, None, :] | (behind[:, :, None] & back))


@dataclass(frozen=True)
class AttentionKind:
    """One row-by-column table and what it promises to a cache.

    ``prefix_exact``: nothing in the prefix sees the suffix, so prefix keys and values can be cached.
    ``future_exact``: final future images do not see the action, so theirs can be cached as well.
    ``ends_at_eoa``: the block ends at a visible EOA, in training and at every step of decoding: see :func:`ended`.
    """

    name: str
    table: tuple[tuple[int, int, int, int], ...]  # [query][key] over TEXT, CURRENT, FUTURE, ACTION
    ends_at_eoa: bool = False

    @property
    def prefix_exact(self) -> bool:
        """Whether caching text and current images changes no logit."""
        return all(self.table[query][key] == NONE for query in (0, 1) for key in (2, 3))

    @property
    def future_exact(self) -> bool:
        """Whether caching final future images as well changes no logit of the action."""
        return self.prefix_exact and self.table[2][3] == NONE


KINDS: dict[str, AttentionKind] = {
    kind.name: kind
    for kind in (
        AttentionKind(
            "hybrid",
            ((CAUSAL, NONE, NONE, NONE), (ALL, ALL, NONE, NONE), (ALL, ALL, ALL, NONE), (ALL,) * 4),
        ),
        AttentionKind("merged", ((CAUSAL, NONE, NONE, NONE), (ALL,) * 4, (ALL,) * 4, (ALL,) * 4), ends_at_eoa=True),
        AttentionKind(
            "causal",
            (
                (CAUSAL, NONE, NONE, NONE),
                (ALL, CAUSAL, NONE, NONE),
                (ALL, ALL, CAUSAL, NONE),
                (ALL, ALL, ALL, CAUSAL),
            ),
        ),
        AttentionKind("bidirectional", ((ALL,) * 4,) * 4),
    )
}


def attention_kind(name: str) -> AttentionKind:
    """Return the kind of that name. Raises BundleError listing the known ones."""
    if name not in KINDS:
        raise BundleError(f"unknown attention '{name}'; known: {', '.join(KINDS)}")
    return KINDS[name]


def attention_mask(
    kind: AttentionKind,
    query: Tensor,
    key: Tensor,
    query_position: Tensor,
    key_position: Tensor,
    query_group: Tensor | None = None,
    key_group: Tensor | None = None,
) -> Tensor:
    """Return the boolean mask ``[B, 1, Q, K]`` (True: the query may look at the key).

    Args:
        kind: the table.
        query, key: :class:`Modality` values, ``[B, Q]`` and ``[B, K]``.
        query_position, key_position: positions in the sequence, for the causal entries.
        query_group, key_group: ``[Q]`` and ``[K]``; several suffixes may share one prefix in one
            sequence: group 0 (the prefix) is open to all, any other group only to itself.

    PAD is seen by nobody but PAD, which keeps every softmax row finite.
    """
    table = torch.zeros(5, 5, dtype=torch.long, device=query.device)
    table[1:, 1:] = torch.tensor(kind.table, device=query.device)
    entry = table[query[:, :, None], key[:, None, :]]
    causal = key_position[:, None, :] <= query_position[:, :, None]
    allowed = (entry == ALL) | ((entry == CAUSAL) & causal)
    if query_group is not None and key_group is not None:
        allowed &= (key_group[None, :] == 0) | (key_group[None, :] == query_group[:, None])
    # Keys of padding queries are never read; letting them look at padding avoids rows without any key.
    allowed |= (query == Modality.PAD)[:, :, None] & (key == Modality.PAD)[:, None, :]
    return allowed[:, None]
