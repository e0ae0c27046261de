"""Which of the measured ways of decoding is worth it: the Pareto front, and the one point that was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from udvla_ros.errors import ConfigError

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Wish:
    """What is asked for: at most ``budget_ms`` at the 95th percentile, else at least ``floor`` of the reference.

    ``exact``: only candidates without approximate options.
    """

    budget_ms: float | None = None
    floor: float | None = None
    exact: bool = False

    def __post_init__(self) -> None:
        if (self.budget_ms is None) == (self.floor is None):
            raise ConfigError("give either --budget-ms or --floor")
        if self.budget_ms is not None and self.budget_ms <= 0:
            raise ConfigError(f"--budget-ms {self.budget_ms:g} is no time; give more than 0")
        if self.floor is not None and not 0 < self.floor <= 1:
            raise ConfigError(f"--floor {self.floor:g} must lie in (0, 1]: a share of what the reference reaches")

    def text(self) -> str:
        """Return it in words."""
        wish = f"p95 within {self.budget_ms:g} ms" if self.budget_ms is not None else f"quality from {self.floor:g} on"
        return wish + (", exact options only" if self.exact else "")


def quality(row: Row, reference: Row | None = None) -> float:
    """Return what a candidate is worth, 1 being the reference's: success where it was simulated, else agreement."""
    if "success" in row and reference is not None and reference.get("success", {}).get("rate"):
        return float(row["success"]["rate"] / reference["success"]["rate"])
    return float(row["agreement"])


def front(rows: Sequence[Row], worth: str = "agreement") -> list[Row]:
    """Return the rows that no other beats in both median latency and ``worth``, the fastest first."""
    kept: list[Row] = []
    for row in sorted(rows, key=lambda r: (r["latency_ms"]["p50"], -_worth(r, worth))):
        if not kept or _worth(row, worth) > _worth(kept[-1], worth):
            kept.append(row)
    return kept


def _worth(row: Row, name: str) -> float:
    return float(row["success"]["rate"] if name == "success" else row[name])


def choose(rows: Sequence[Row], wish: Wish, reference: Row) -> Row:
    """Return the chosen row: the best within the budget, or the fastest that is good enough.

    Where episodes were simulated, only rows with episodes can be chosen: agreement says less than success.

    Raises:
        ConfigError: none is fast or good enough; the message says what comes nearest.
    """
    simulated = [row for row in rows if "success" in row]
    able = [row for row in simulated or rows if row["exact"] or not wish.exact]
    if wish.budget_ms is not None:
        fast = [row for row in able if row["latency_ms"]["p95"] <= wish.budget_ms]
        if not fast:
            nearest = min(able, key=lambda r: r["latency_ms"]["p95"])
            raise ConfigError(
                f"no way of decoding keeps p95 within {wish.budget_ms:g} ms here; the fastest, '{nearest['name']}', "
                f"takes {nearest['latency_ms']['p95']:.0f} ms"
            )
        return max(fast, key=lambda r: (quality(r, reference), r["agreement"], -r["latency_ms"]["p50"]))
    assert wish.floor is not None
    good = [row for row in able if quality(row, reference) >= wish.floor]
    if not good:
        nearest = max(able, key=lambda r: quality(r, reference))
        raise ConfigError(
            f"no way of decoding reaches {wish.floor:g} of the reference; '{nearest['name']}' comes nearest with "
            f"{quality(nearest, reference):.3f}"
        )
    return min(good, key=lambda r: (r["latency_ms"]["p50"], -r["agreement"]))
