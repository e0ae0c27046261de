"""Is the child better than its parent? Open loop on episodes that neither was trained on, frame by frame in pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from udvla_ros.errors import TokenError, UdvlaError
from udvla_ros.learning.plan import apart
from udvla_ros.model.checkpoint import ActionConvention
from udvla_ros.policy.policy import Observation, Policy
from udvla_ros.rollouts.episodes import Episode, read_episodes
from udvla_ros.training.tokenize import convention_of

FRAMES = 192  # looked at, spread evenly
BATCH = 32
WORSE = 0.05  # share by which a child may miss its parent's error before it is called worse


@dataclass
class Errors:
    """Of one policy at N frames: ``position`` (mm, or mrad of joints) and ``turn`` (mrad) at the chunk's end.

    ``gripper`` is the share of the chunk's commands that agree. NaN where the policy gave no chunk.
    """

    position: np.ndarray
    turn: np.ndarray
    gripper: np.ndarray
    unit: str

    def told(self) -> dict[str, Any]:
        """Return medians and means for a report."""
        found: dict[str, Any] = {
            f"position_{self.unit}_median": _or_none(np.nanmedian, self.position),
            f"position_{self.unit}_mean": _or_none(np.nanmean, self.position),
            "gripper_agreement": _or_none(np.nanmean, self.gripper),
            "frames": len(self.position), "no_chunk": int(np.isnan(self.position).sum()),
        }  # fmt: skip
        if not np.isnan(self.turn).all():
            found["turn_mrad_median"] = _or_none(np.nanmedian, self.turn)
        return found


def _or_none(of: Any, values: np.ndarray) -> float | None:
    return None if np.isnan(values).all() else round(float(of(values)), 4)


def moments(data: Path, count: int = FRAMES) -> list[tuple[Episode, int]]:
    """Return labelled frames of a data set, spread evenly over its episodes."""
    every = [(episode, int(step)) for episode in read_episodes(data) for step in episode.learnable]
    chosen = np.unique(np.linspace(0, len(every) - 1, min(count, len(every))).round().astype(int))
    return [every[k] for k in chosen]


def errors_of(policy: Policy, seen: Sequence[tuple[Episode, int]], action: ActionConvention, seed: int = 0) -> Errors:
    """Return how far a policy's chunks end from what was done from the same frames on."""
    found: list[np.ndarray | None] = []
    for first in range(0, len(seen), BATCH):
        batch = [
            Observation({n: v[step] for n, v in e.images.items()}, e.instruction) for e, step in seen[first:][:BATCH]
        ]
        try:
            found += [chunk.actions for chunk in policy.infer_batch(batch, seed=seed)]
        except TokenError:  # one sentence or chunk spoils a batch: one by one
            found += [_alone(policy, observation, seed) for observation in batch]
    truth = [e.intention[step] for e, step in seen]
    pairs = [_apart(a, t, action) if a is not None else (np.nan,) * 3 for a, t in zip(found, truth, strict=True)]
    position, turn, gripper = np.array(pairs, float).T
    return Errors(position, turn, gripper, "mm" if action.space == "tcp_delta" else "mrad")


def _alone(policy: Policy, observation: Observation, seed: int) -> np.ndarray | None:
    try:
        return policy.infer(observation, seed=seed).actions
    except TokenError:
        return None


def _apart(wanted: np.ndarray, truth: np.ndarray, action: ActionConvention) -> tuple[float, float, float]:
    missed = wanted.astype(float) - truth
    end = missed[-1] if action.space == "joint_absolute" else missed.sum(axis=0)
    moving = [i for i in range(action.dimensions) if i != action.gripper]
    agree = np.nan
    if action.gripper is not None:
        agree = float((np.sign(wanted[:, action.gripper]) == np.sign(truth[:, action.gripper])).mean())
    if action.space == "tcp_delta":
        return 1e3 * float(np.linalg.norm(end[:3])), 1e3 * float(np.linalg.norm(end[3:6])), agree
    return 1e3 * float(np.linalg.norm(end[moving])), np.nan, agree


def compare(parent: Errors | None, child: Errors) -> tuple[bool, str]:
    """Return whether the child may be released, and why, in one line.

    It may not where its mean error exceeds its parent's by more than :data:`WORSE`, or it grasps less often right, each
    beyond what chance would do (95% interval of the paired difference, bootstrap).
    """
    silent = np.isnan(child.position)
    if silent.mean() > 0.1:
        return False, f"the child gave no chunk at {int(silent.sum())} of {len(silent)} frames"
    if parent is None or np.isnan(parent.position).all():
        return True, f"{np.nanmean(child.position):.1f} {child.unit}; the parent cannot be asked the same"
    both = ~(np.isnan(parent.position) | np.isnan(child.position))
    a, b = parent.position[both], child.position[both]
    low = lowest_difference(b - (1 + WORSE) * a)
    agree = child.gripper[both] - parent.gripper[both]
    grasp = lowest_difference(-agree) if not np.isnan(agree).any() else 0.0
    line = f"{a.mean():.1f} -> {b.mean():.1f} {child.unit} at the chunk's end"
    if not np.isnan(agree).any():
        line += f", gripper {parent.gripper[both].mean():.1%} -> {child.gripper[both].mean():.1%} right"
    return low <= 0 and grasp <= 0.01, line


def lowest_difference(values: np.ndarray, rounds: int = 1000) -> float:
    """Return the lower end of the 95% interval of a mean (bootstrap, the same draws each time)."""
    if not len(values):
        return 0.0
    draws = np.random.default_rng(0).integers(0, len(values), (rounds, len(values)))
    return float(np.quantile(values[draws].mean(axis=1), 0.025))


def judge_open_loop(parent: str | Path, child: str | Path, data: Path, device: str = "cpu") -> dict[str, Any]:
    """Return the verdict on the same frames: ``released``, ``why``, ``parent_errors``, ``child``."""
    seen, action = moments(data), convention_of(data)
    mine = errors_of(Policy.load(child, device), seen, action)
    theirs, reason = None, ""
    try:
        policy = Policy.load(parent, device)
        keys = apart(action, policy.config.action)
        if keys:
            reason = f"it speaks another {', '.join(keys)}"
        else:
            theirs = errors_of(policy, seen, action)
    except UdvlaError as error:
        reason = str(error)
    better, why = compare(theirs, mine)
    return {
        "released": better, "why": why + (f" ({reason})" if reason else ""), "child": mine.told(),
        "parent_errors": theirs.told() if theirs else None, "judged_on": str(data),
    }  # fmt: skip
