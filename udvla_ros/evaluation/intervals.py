"""How sure a success rate is, and percentiles of times."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import sqrt

import numpy as np

Z95 = 1.959964  # of the normal distribution, two-sided 95%
PERCENTILES = (50, 95, 99)


def wilson(successes: int, trials: int, z: float = Z95) -> tuple[float, float]:
    """Return the Wilson score interval of a rate (E. B. Wilson 1927); (0, 1) without trials.

    Unlike the normal approximation it stays within 0 and 1 and is not empty at 0 or all successes.

    Raises:
        ValueError: more successes than trials, or a negative count.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials")
    if not trials:
        return 0.0, 1.0
    rate, square = successes / trials, z * z
    centre = (rate + square / (2 * trials)) / (1 + square / trials)
    half = z / (1 + square / trials) * sqrt(rate * (1 - rate) / trials + square / (4 * trials * trials))
    # At the ends the bounds are exact, whatever rounding says.
    return (centre - half if successes else 0.0), (centre + half if successes < trials else 1.0)


def rate_with_interval(successes: int, trials: int) -> dict[str, object]:
    """Return ``rate`` and ``ci95`` as a report holds them, rounded to four digits; ``rate`` is None at no trials."""
    low, high = wilson(successes, trials)
    rate = round(successes / trials, 4) if trials else None
    return {"rate": rate, "ci95": [round(low, 4), round(high, 4)]}


def percentiles(samples: Iterable[float]) -> dict[str, float]:
    """Return ``p50``, ``p95`` and ``p99`` of times in ms; empty without samples."""
    values = np.fromiter(samples, float)
    if not values.size:
        return {}
    return {f"p{p}": round(float(np.percentile(values, p)), 2) for p in PERCENTILES}


def stage_percentiles(timings: Iterable[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Return :func:`percentiles` per stage of many timings, in the order in which the stages first occur."""
    stages: dict[str, list[float]] = {}
    for timing in timings:
        for stage, value in timing.items():
            stages.setdefault(stage, []).append(value)
    return {stage: percentiles(values) for stage, values in stages.items()}
