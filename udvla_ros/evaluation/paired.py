"""Two ways of doing the same episodes, compared episode by episode: the scenes cancel out.

Pairs are episodes of the same task, scene, sentence and condition. Only those that one way won and the other lost
say anything: the exact test (McNemar) asks whether they are as even as a coin.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import comb, sqrt
from typing import Any

from udvla_ros.errors import ConfigError
from udvla_ros.evaluation.intervals import Z95, wilson


@dataclass(frozen=True)
class Paired:
    """Counts of pairs: what both won, only the first, only the second, and neither."""

    both: int
    first: int
    second: int
    neither: int

    @property
    def count(self) -> int:
        """Pairs."""
        return self.both + self.first + self.second + self.neither

    @property
    def difference(self) -> float:
        """Success rate of the second less that of the first."""
        return (self.second - self.first) / self.count

    def interval(self) -> tuple[float, float]:
        """Return the 95% interval of the difference of paired rates (Newcombe 1998, method 10)."""
        n, a, b, c, d = self.count, self.both, self.second, self.first, self.neither
        p2, p1 = (a + b) / n, (a + c) / n
        (l2, u2), (l1, u1) = wilson(a + b, n, Z95), wilson(a + c, n, Z95)
        product = (a + b) * (c + d) * (a + c) * (b + d)
        phi = 0.0
        if product:
            cross = a * d - b * c
            phi = (max(cross - n / 2, 0.0) if cross > 0 else cross) / sqrt(product)
        low = sqrt(max(0.0, (p2 - l2) ** 2 - 2 * phi * (p2 - l2) * (u1 - p1) + (u1 - p1) ** 2))
        high = sqrt(max(0.0, (p1 - l1) ** 2 - 2 * phi * (p1 - l1) * (u2 - p2) + (u2 - p2) ** 2))
        return self.difference - low, self.difference + high

    def p_value(self) -> float:
        """Return the two-sided exact probability of a split at least as uneven, were both equally good."""
        n, few = self.first + self.second, min(self.first, self.second)
        return min(1.0, 2 * sum(comb(n, k) for k in range(few + 1)) / 2**n)

    def as_dict(self) -> dict[str, Any]:
        """Return what a report holds."""
        return {
            "pairs": self.count,
            "both": self.both,
            "only_first": self.first,
            "only_second": self.second,
            "neither": self.neither,
            "difference": round(self.difference, 4),
            "ci95": [round(value, 4) for value in self.interval()],
            "p": round(self.p_value(), 4),
        }


def pair(first: Iterable[Mapping[str, Any]], second: Iterable[Mapping[str, Any]]) -> Paired:
    """Return the comparison of two reports' ``episodes``.

    Raises:
        ConfigError: they share no episode.
    """
    won = {_key(episode): bool(episode["success"]) for episode in first}
    both = [(won[_key(e)], bool(e["success"])) for e in second if _key(e) in won]
    if not both:
        raise ConfigError("the two reports share no episode: run both with the same --task, --episodes and --seed")
    return Paired(*(both.count(kind) for kind in ((True, True), (True, False), (False, True), (False, False))))


def _key(episode: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(episode.get(name) for name in ("task", "seed", "instruction", "condition"))
