"""What is usual where things go well, and from where on it counts as an alarm: split conformal prediction.

The successful episodes are split in two. The first half says how usual each score is (its tail probability); the second
half says how far the sum of these surprises goes in an episode that ends well, and the threshold lies above all but the
chosen share of them. Episodes that are exchangeable with those (same robot, bundle, scenes) then raise a false alarm at
most that often (Vovk et al. 2005; for failures of policies: arXiv 2503.08558). Failures, where there are any, only
weigh the scores against each other: the guarantee does not depend on them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

from udvla_ros.errors import ConfigError
from udvla_ros.monitor.episode import ScoredEpisode

FILE = "monitor.json"  # in the bundle's folder
FORMAT = 1
PATIENCE = 4  # largest
LEVELS = np.concatenate([np.linspace(0.0, 0.9, 37), 1.0 - np.logspace(-1, -3, 25)[1:], [1.0]])
FEWEST = 20  # successes in each half, and failures that are enough to weigh scores
IGNORED = ("elapsed", "spread")  # there to be compared with
RIDGE = 0.02


@dataclass(frozen=True)
class Calibration:
    """A monitor's file.

    Attributes:
        bundle: hash of the bundle it was fitted to; another one foresees other things.
        reference: of each score, its values in successful episodes at :data:`LEVELS`.
        weights: of each score's surprise in the sum.
        rate: share of successful episodes that may raise an alarm; ``patience``: chunks in a row that make one.
        reached: ``reached[p - 1]``: how far the sum went for p chunks in a row, of each episode of the second half.
        successes, failures: episodes it was fitted to.
        command: that made it.
    """

    bundle: str
    reference: dict[str, list[float]]
    weights: dict[str, float]
    rate: float
    patience: int
    reached: list[list[float]]
    successes: int
    failures: int
    command: str = ""

    def surprises(self, scores: Mapping[str, float]) -> dict[str, float]:
        """Return of each score how unusual it is, weighed: minus the decimal logarithm of its tail probability."""
        found = {}
        for name, weight in self.weights.items():
            if weight > 0 and name in scores:
                found[name] = weight * surprise(scores[name], self.reference[name])
        return found

    def total(self, scores: Mapping[str, float]) -> float:
        """Return the sum of the surprises."""
        return sum(self.surprises(scores).values())

    def threshold(self, patience: int | None = None, rate: float | None = None) -> float:
        """Return what the sum must exceed for ``patience`` chunks in a row; infinite where episodes are too few.

        Raises:
            ConfigError: a patience that was not calibrated.
        """
        patience = self.patience if patience is None else patience
        if not 1 <= patience <= len(self.reached):
            raise ConfigError(f"patience {patience} is not calibrated; give 1 to {len(self.reached)}")
        return conformal(self.reached[patience - 1], self.rate if rate is None else rate)

    def save(self, folder: Path) -> Path:
        """Write it into a bundle's folder."""
        path = folder / FILE
        path.write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, folder: Path, bundle: str) -> Calibration:
        """Read the file of a bundle.

        Raises:
            ConfigError: there is none, it is not readable, or it was fitted to another bundle.
        """
        path = folder / FILE
        mend = f"fit it: udvla monitor fit BAGS --bundle {folder}"
        if not path.is_file():
            raise ConfigError(f"{folder} has no {FILE}, so the monitor has no threshold; {mend}")
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
            if plain.pop("format") != FORMAT:
                raise ValueError("another format")
            found = cls(**plain)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError(f"{path} is no calibration of this version ({error}); {mend}") from None
        if found.bundle != bundle:
            raise ConfigError(
                f"{path} was fitted to bundle {found.bundle[:8]} and this one is {bundle[:8]}: it foresees other "
                f"things; {mend}"
            )
        return found


def surprise(value: float, reference: Sequence[float]) -> float:
    """Return minus the decimal logarithm of the share of reference values that reach ``value``; 0 to 3 and a half.

    Beyond the largest one it grows on, with the distance in spreads of the upper tenth, by half a decade at most.
    """
    if value <= reference[0]:
        return 0.0
    highest = reference[-1]
    if value > highest:
        spread = max(highest - float(np.interp(0.9, LEVELS, reference)), 1e-6)
        return 3.0 + 0.5 * (1.0 - math.exp(-(value - highest) / spread))
    at = int(np.searchsorted(reference, value))  # where many have the very same value, all of them reach it
    level = LEVELS[at] if reference[at] == value else np.interp(value, reference, LEVELS)
    above = 1.0 - float(level)
    return -math.log10(max(above, 1e-3))


def conformal(reached: Sequence[float], rate: float) -> float:
    """Return the smallest threshold that one more exchangeable value exceeds with a probability of ``rate`` at most."""
    rank = math.ceil((len(reached) + 1) * (1.0 - rate))
    return math.inf if rank > len(reached) else float(np.sort(reached)[rank - 1])


def held(values: Sequence[float], patience: int) -> float:
    """Return the highest level at or above which the values stay ``patience`` times in a row."""
    if len(values) < patience:
        return 0.0
    return float(np.lib.stride_tricks.sliding_window_view(np.asarray(values, float), patience).min(axis=1).max())


def fit(
    episodes: Sequence[ScoredEpisode], bundle: str, rate: float, patience: int = 1, command: str = "", seed: int = 0
) -> Calibration:
    """Calibrate on episodes; those that nothing disturbed and that succeeded are the ones that count as usual.

    Raises:
        ConfigError: too few successes for a threshold at that rate, or no scores in them.
    """
    if not 0 < rate < 1:
        raise ConfigError(f"a false-alarm rate of {rate:g} is none; give a share between 0 and 1, such as 0.05")
    usual = [e for e in episodes if e.success and e.kind == "plain" and e.scores]
    failed = [e for e in episodes if not e.success and e.scores]
    needed = max(FEWEST, math.ceil(1.0 / rate) - 1)
    if len(usual) < 2 * needed:
        raise ConfigError(
            f"{len(usual)} successful episodes with scores are too few for a false-alarm rate of {rate:g}: "
            f"{2 * needed} are needed; record more, or allow more false alarms"
        )
    order = np.random.default_rng(seed).permutation(len(usual))
    first, second = ([usual[i] for i in half] for half in np.array_split(order, 2))
    reference = _reference(first)
    found = Calibration(
        bundle, reference, dict.fromkeys(reference, 1.0), rate, patience, [], len(usual), len(failed), command
    )
    if len(failed) >= FEWEST:
        found = replace(found, weights=_weights(reference, first, failed))
    sums = [[found.total(scores) for scores in episode.scores] for episode in second]
    reached = [[round(held(values, p), 5) for values in sums] for p in range(1, PATIENCE + 1)]
    return replace(found, reached=reached)


def _reference(episodes: Sequence[ScoredEpisode]) -> dict[str, list[float]]:
    """Return the values of each score at :data:`LEVELS`; one that never varies says nothing and is left out."""
    names = dict.fromkeys(name for episode in episodes for scores in episode.scores for name in scores)
    reference = {}
    for name in names:
        values = [scores[name] for episode in episodes for scores in episode.scores if name in scores]
        constant = min(values) == max(values) and name != "unknown_words"
        if name not in IGNORED and not constant:
            reference[name] = np.quantile(values, LEVELS).round(6).tolist()
    return reference


def _weights(
    reference: Mapping[str, Sequence[float]], usual: Sequence[ScoredEpisode], failed: Sequence[ScoredEpisode]
) -> dict[str, float]:
    """Return weights, none negative, of a logistic regression of failure on each score's largest surprise."""
    rows = np.array([[largest(episode, n, reference[n]) for n in reference] for episode in (*usual, *failed)])
    labels = np.repeat([-1.0, 1.0], (len(usual), len(failed)))
    share = np.where(labels > 0, 0.5 / len(failed), 0.5 / len(usual))

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        weights, margin = values[:-1], labels * (rows @ values[:-1] + values[-1])
        slope = -labels * share / (1.0 + np.exp(margin))
        gradient = np.append(rows.T @ slope + 2 * RIDGE * weights, slope.sum())
        return float(share @ np.logaddexp(0.0, -margin) + RIDGE * weights @ weights), gradient

    bounds = [(0.0, None)] * len(reference) + [(None, None)]
    start = np.append(np.full(len(reference), 0.3), -1.0)
    found = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B")
    return {name: round(float(weight), 4) for name, weight in zip(reference, found.x, strict=False)}


def largest(episode: ScoredEpisode, name: str, reference: Sequence[float]) -> float:
    """Return one score's largest surprise in an episode, unweighed."""
    return max((surprise(scores[name], reference) for scores in episode.scores if name in scores), default=0.0)
