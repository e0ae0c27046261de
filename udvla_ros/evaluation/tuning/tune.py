"""What ``udvla tune`` measures: each way of decoding against the full-step reference, on the same observations.

A policy that samples does not repeat itself, so that a difference means nothing by itself: it is told beside how far
two runs of the reference are apart. ``agreement`` is 1 less the energy coefficient of the two distributions of
chunks (Székely and Rizzo 2013), which is 1 where they are the same and also falls where one is merely narrower: a
greedy decoder is close to everything and still does something else.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from udvla_ros.decoding.interface import DecodeOptions
from udvla_ros.errors import ConfigError
from udvla_ros.evaluation.intervals import percentiles
from udvla_ros.evaluation.timer import Way, in_turn
from udvla_ros.evaluation.tuning.tune_observations import Moment
from udvla_ros.policy.knobs import KNOBS, options_of
from udvla_ros.policy.policy import ActionChunk, Policy

REFERENCE = "reference"
REFERENCE_STEPS = 24  # of the published chunks
EVERY = 8  # chunks between two of the reference: the machine may slow down half way


@dataclass(frozen=True)
class Candidate:
    """One way of decoding. ``exact``: nothing in it is approximate but the number of steps."""

    name: str
    options: DecodeOptions

    @property
    def exact(self) -> bool:
        """Whether it uses none of the approximate options."""
        o = self.options
        return not o.remask


def candidates(policy: Policy) -> list[Candidate]:
    """Return the reference and what is tried against it; all keep the bundle's temperature and schedule."""
    own = policy.options()
    if policy.config.attention == "causal":
        plain: dict[str, Any] = {"decoder": "autoregressive"}
        tried: list[dict[str, Any]] = [{"decoder": "jacobi", "iterations": n} for n in (None, 32, 16, 8, 4)]
    else:
        plain = {
            "decoder": "jd3p",
            "steps": REFERENCE_STEPS,
            "action_steps": None,
            "foresight": "full",
            "confidence_threshold": None,
            "entropy_bound": None,
            "iterations": None,
            "stop_when_ready": False,
            "remask": 0.0,
            "samples": 1,
        }
        tried = [{"steps": n} for n in (12, 8, 6, 4, 3, 2, 1)]
        tried += [{"steps": a, "action_steps": b} for a, b in ((8, 4), (8, 2), (4, 8), (4, 2), (2, 4), (2, 1), (1, 4))]
        tried += [{"steps": 8, "confidence_threshold": p} for p in (0.9, 0.7, 0.5)]
        tried += [{"steps": n, "stop_when_ready": True, "confidence_threshold": 0.7} for n in (8, 4)]
        tried += [{"steps": n, "foresight": "sketch"} for n in (8, 4)]
        tried += [{"steps": n, "foresight": "off"} for n in (8, 4, 2, 1)]
        tried += [{"steps": 8, "iterations": 4}, {"decoder": "independent", "steps": 4, "action_steps": 4}]
        tried += [{"steps": 8, "sampler": name} for name in ("exact", "annealed")]
        tried += [{"steps": 8, "entropy_bound": nats} for nats in (0.5, 2.0, 8.0)]
        tried += [{"steps": 8, "remask": 0.1}, {"steps": 4, "samples": 4}]
    return named(policy, plain, [{}, *({**plain, **change} for change in tried)], own)


def grid(policy: Policy, texts: Sequence[str]) -> list[Candidate]:
    """Return the reference and every combination of ``name=value,value`` texts, names as the node's parameters.

    Raises:
        ConfigError: no such knob, or a value that is none of its.
    """
    knobs = {knob.name: knob for knob in KNOBS}
    axes: dict[str, list[Any]] = {}
    for text in texts:
        name, _, values = text.partition("=")
        if name not in knobs or not values:
            raise ConfigError(f"--grid '{text}': give NAME=VALUE,VALUE with one of {', '.join(knobs)}")
        kind = type(knobs[name].default)
        try:
            axes[name] = [_value(kind, word) for word in values.split(",")]
        except ValueError:
            raise ConfigError(f"--grid '{text}': {name} takes values like {knobs[name].default}") from None
    first = candidates(policy)[0]
    changes = [options_of(dict(zip(axes, row, strict=True))) for row in itertools.product(*axes.values())]
    return named(policy, asdict(first.options), changes, policy.options())


def _value(kind: type, word: str) -> Any:
    if kind is bool:
        if word not in ("true", "false"):
            raise ValueError(word)
        return word == "true"
    return kind(word)


def named(
    policy: Policy, plain: Mapping[str, Any], tried: Sequence[Mapping[str, Any]], own: DecodeOptions
) -> list[Candidate]:
    """Return the reference and the different ones among the others, named by what they change of the bundle's own."""
    found = [Candidate(REFERENCE, policy.check(policy.options(**plain)))]
    for change in tried:
        options = policy.check(policy.options(**change))
        if options not in [c.options for c in found]:
            found.append(Candidate(name_of(options, own), options))
    return found


def name_of(options: DecodeOptions, own: DecodeOptions) -> str:
    """Return a short name: decoder and steps, and what else differs from the bundle's own options."""
    parts = [options.decoder]
    if options.decoder in ("jd3p", "independent"):
        steps = (
            f"{options.steps}"
            if options.action_steps in (None, options.steps)
            else (f"{options.steps}+{options.action_steps}")
        )
        parts.append(steps)
    for name, value in asdict(options).items():
        if name not in ("decoder", "steps", "action_steps") and value != getattr(own, name):
            parts.append(name.replace("_", "-") if value is True else f"{name.replace('_', '-')}={value}")
    return " ".join(parts)


# -- measuring -----------------------------------------------------------------------------------------


@dataclass
class Drawn:
    """Chunks of one candidate: ``actions`` [N, S, K, D] and ``codes`` [N, S, V] of N observations and S seeds."""

    actions: np.ndarray
    codes: np.ndarray
    total_ms: list[float]
    reference_ms: list[float]
    forwards: float


def draw(
    policy: Policy,
    candidate: Candidate,
    reference: Candidate,
    moments: Sequence[Moment],
    seeds: int,
    progress: Callable[[], object] = lambda: None,
) -> Drawn:
    """Decode every observation with every seed, one at a time, each timed; now and then one of the reference's."""
    options, every = candidate.options, [moment for moment in moments for _ in range(seeds)]
    policy.warm_up(options)
    policy.warm_up(reference.options, runs=1)

    def before(name: str, turn: int) -> ActionChunk | None:
        """Several samples are compared with the chunk before, which began anew."""
        alone = options.samples == 1 or name != "drawn"
        return None if alone else policy.infer(every[turn].earlier, options, _seed(turn, 1))

    ways = {"drawn": Way(policy, options), "beside": Way(policy, reference.options, EVERY)}
    seen = [moment.now for moment in every]
    taken = in_turn(ways, seen, len(seen), seed=lambda turn: _seed(turn, 2), before=before, progress=progress)
    drawn, shape = taken["drawn"], (len(moments), seeds)
    actions = np.stack([chunk.actions for chunk in drawn])
    total, beside = ([chunk.timings_ms["total"] for chunk in taken[name]] for name in ways)
    forwards = float(np.mean([chunk.statistics["forwards"] for chunk in drawn]))
    codes = np.stack([_codes(chunk) for chunk in drawn])
    return Drawn(actions.reshape(*shape, *actions.shape[1:]), codes.reshape(*shape, -1), total, beside, forwards)


def _seed(index: int, stream: int) -> int:
    return int(np.random.SeedSequence((index, stream)).generate_state(1)[0])


def _codes(chunk: ActionChunk) -> np.ndarray:
    assert chunk.codes is not None
    return np.asarray(chunk.codes[0])


def parts_of(space: str, dimensions: int) -> dict[str, tuple[slice, str]]:
    """Return the parts of an action that are told apart: name to columns and unit."""
    if space == "tcp_delta":
        return {"translation": (slice(0, 3), "m"), "rotation": (slice(3, 6), "rad")}
    return {"joints": (slice(0, dimensions - 1), "rad")}


def compare(reference: Drawn, drawn: Drawn, space: str) -> dict[str, Any]:
    """Return how far a candidate's chunks are from the reference's.

    ``rmse`` is the root mean square over steps, observations and pairs of different seeds, of the length of the
    difference of two actions; ``spread`` is that of the reference with itself, ``own_spread`` the candidate's.
    """
    result: dict[str, Any] = {}
    parts = parts_of(space, reference.actions.shape[-1])
    for name, (columns, unit) in parts.items():
        r, c = reference.actions[..., columns], drawn.actions[..., columns]
        result[name] = {
            "unit": unit,
            "rmse": _rms(c, r),
            "spread": _rms(r, r),
            "own_spread": _rms(c, c),
            "agreement": round(agreement(c, r), 4),
        }
    first = next(iter(result.values()))
    images = _same_codes(drawn.codes, reference.codes)
    return {
        **result,
        "agreement": first["agreement"],
        "ratio": round(first["rmse"] / first["spread"], 3) if first["spread"] else None,
        "gripper_agreement": round(float(_across(drawn.actions, reference.actions, _same_sign).mean()), 4),
        "image_agreement": images,
        "image_agreement_reference": _same_codes(reference.codes, reference.codes),
    }


def agreement(first: np.ndarray, second: np.ndarray) -> float:
    """Return 1 less the energy coefficient of two sets of chunks [N, S, K, d], over N observations together.

    Where neither varies at all, distances are measured by the length of the second's own chunks instead.
    """
    between = _across(first, second, _distance).mean()
    within = (_across(first, first, _distance).mean() + _across(second, second, _distance).mean()) / 2
    if between == 0:
        return 1.0
    if within == 0:
        scale = np.sqrt((second**2).sum((-1, -2)).mean())
        return float(scale / (scale + 2 * between))
    return float(np.clip(within / between, 0.0, 1.0))


def _across(first: np.ndarray, second: np.ndarray, measure: Callable[..., np.ndarray]) -> np.ndarray:
    """Return ``measure`` of all pairs of different seeds [N, pairs]: the same seed draws related noise."""
    seeds = range(first.shape[1])
    return np.stack([measure(first[:, i], second[:, j]) for i in seeds for j in seeds if i != j], 1)


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sqrt(((a - b) ** 2).sum((-1, -2)))


def _same_sign(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (np.sign(a[..., -1]) == np.sign(b[..., -1])).mean(-1)


def _rms(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt((_across(a, b, _distance) ** 2).mean() / a.shape[2]))


def _same_codes(first: np.ndarray, second: np.ndarray) -> float | None:
    """Return the share of equal codes among those that both have; None where there are none."""
    seeds = range(first.shape[1])
    equal = known = 0
    for i, j in ((i, j) for i in seeds for j in seeds if i != j):
        both = (first[:, i] >= 0) & (second[:, j] >= 0)
        equal += int(((first[:, i] == second[:, j]) & both).sum())
        known += int(both.sum())
    return round(equal / known, 4) if known else None


def row(candidate: Candidate, drawn: Drawn, reference: Drawn, space: str) -> dict[str, Any]:
    """Return one candidate's line of the report, without what the simulation says."""
    times, beside = percentiles(drawn.total_ms), percentiles(drawn.reference_ms)
    return {
        "name": candidate.name,
        "exact": candidate.exact,
        "options": asdict(candidate.options),
        "latency_ms": times,
        "speedup": round(beside["p50"] / times["p50"], 2) if times["p50"] else None,
        "forwards": round(drawn.forwards, 1),
        **compare(reference, drawn, space),
    }
