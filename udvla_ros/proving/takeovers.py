"""What takeovers by hand measured: how soon the command follows, how smooth the switches are, who let go when.

*Following.* Time runs from the stamp of the operator's first message (the command it set out from, a little before
it is sent) to the first command whose velocity has departed from the plan it took over, along what the operator
asked for, by ``FOLLOWS`` of the way from that plan's velocity to the one asked for. Both are known exactly: the
plan is what the arbiter had sent to the controller, the velocity asked for is the operator's. Commands are heard at
100 Hz, so the figure comes in steps of 10 ms; ``mostly`` tells how much longer the change itself takes.

*No jump.* Around each switch (touch, release, hand-back) the commanded velocity and its first and second divided
differences stay within the robot file's velocity, acceleration and jerk limits; a step would be far beyond them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.interpolate import CubicHermiteSpline

from udvla_ros.motion.limits import Limits

FOLLOWS, MOSTLY = 0.02, 0.63  # parts of the way to the velocity asked for
DISTINCT = 0.1  # rad/s between that and the plan's velocity below which nothing can be told
ALLOWED_MS = 50.0
SLACK = 1.02  # stamps carry nanoseconds
AROUND = (0.1, 0.5)  # s before and after a switch that are looked at
LATE_S = 0.1  # s after the timeout by which a silent operator must have led to HOLD


@dataclass
class Takeover:
    """One takeover and what came of it.

    Attributes:
        follow_ms, mostly_ms: see the module; None where it never came.
        trace: (ms since the touch, part of the way to what was asked) for the picture.
        strain: worst velocity, acceleration and jerk as parts of the limits, by switch.
        silence_s: from the operator's last message to HOLD; None where the arm was given back before.
        died: whether the operator's process was killed.
        faults: what must not happen, in words.
    """

    follow_ms: float | None = None
    mostly_ms: float | None = None
    trace: tuple[list[float], list[float]] = ((), ())  # type: ignore[assignment]
    strain: dict[str, dict[str, float]] = field(default_factory=dict)
    silence_s: float | None = None
    died: bool = False
    faults: list[str] = field(default_factory=list)


def departure(
    times: np.ndarray, qd: np.ndarray, plan: tuple[np.ndarray, np.ndarray, np.ndarray], asked: np.ndarray
) -> np.ndarray:
    """Return how much of the way from a plan's velocity to ``asked`` [d] each sample has gone, [n].

    Args:
        times, qd: of the commands: [n] s, [n, d] rad/s.
        plan: times [m] s, velocities and accelerations [m, d] of the plan that was taken over; it rests at its end.
    """
    plan_times, plan_qd, plan_qdd = plan
    old = CubicHermiteSpline(plan_times, plan_qd, plan_qdd)(np.clip(times, plan_times[0], plan_times[-1]))
    way = asked - old
    square = (way**2).sum(axis=1)
    share = ((qd - old) * way).sum(axis=1) / np.maximum(square, 1e-12)
    return np.where(square > DISTINCT**2, share, np.nan)


def first_beyond(times: np.ndarray, share: np.ndarray, begin: float, level: float) -> float | None:
    """Return the milliseconds from ``begin`` to the first sample after it at or beyond ``level``; None: never."""
    found = np.nonzero((times > begin) & (np.nan_to_num(share, nan=-1.0) >= level))[0]
    return float(1e3 * (times[found[0]] - begin)) if found.size else None


def strain(times: np.ndarray, qd: np.ndarray, limits: Limits) -> dict[str, float]:
    """Return the worst velocity, acceleration and jerk of samples as parts of the limits.

    Divided differences are averages of the derivatives between the samples, so that a motion within the limits
    never shows more, however unevenly it was sampled.
    """
    found = {"velocity": float((np.abs(qd) / limits.velocity).max(initial=0.0))}
    fresh = np.concatenate([[True], np.diff(times) > 1e-4])
    times, qd = times[fresh], qd[fresh]
    if len(times) > 2:
        steps = np.diff(times)
        acceleration = np.diff(qd, axis=0) / steps[:, None]
        jerk = np.diff(acceleration, axis=0) / ((steps[1:] + steps[:-1]) / 2)[:, None]
        found["acceleration"] = float((np.abs(acceleration) / limits.acceleration).max())
        found["jerk"] = float((np.abs(jerk) / limits.jerk).max())
    return found


def percentiles(values: Sequence[float]) -> dict[str, float] | None:
    """Return p50, p95, p99 and the greatest; None without values."""
    if not values:
        return None
    found = dict(zip(("p50", "p95", "p99"), np.percentile(values, (50, 95, 99)).tolist(), strict=True))
    return {name: round(value, 2) for name, value in {**found, "max": max(values)}.items()}


def summarise(takeovers: Sequence[Takeover], timeout: float, violations: int | None) -> dict[str, Any]:
    """Return the report; ``failures`` names everything that must not be, and ``passed`` says whether there is none.

    Args:
        timeout: of a silent operator, s.
        violations: of limits at the controller, by the simulation's own witness.
    """
    touched = [t for t in takeovers if not t.died]
    died = [t for t in takeovers if t.died]
    follow = [t.follow_ms for t in touched if t.follow_ms is not None]
    silences = [t.silence_s for t in touched if t.silence_s is not None]
    failures = [f"takeover {number}: {fault}" for number, t in enumerate(takeovers, 1) for fault in t.faults]
    worst: dict[str, float] = {}
    for number, takeover in enumerate(takeovers, 1):
        for switch, found in takeover.strain.items():
            for kind, share in found.items():
                worst[kind] = max(worst.get(kind, 0.0), share)
                if share > SLACK:
                    failures.append(f"takeover {number}: {kind} {share:.2f} of its limit at {switch}")
    missed = sum(t.follow_ms is None for t in touched)
    if missed:
        failures.append(f"{missed} touches were not followed")
    marks = percentiles(follow)
    if marks and marks["p99"] > ALLOWED_MS:
        failures.append(f"the command follows within {marks['p99']:.1f} ms (p99), {ALLOWED_MS:g} ms are allowed")
    for number, takeover in enumerate(takeovers, 1):
        if takeover.silence_s is not None and takeover.silence_s > timeout + LATE_S:
            failures.append(f"takeover {number}: HOLD came {takeover.silence_s:.2f} s after the last message")
    if violations:
        failures.append(f"{violations} limit violations at the controller")
    return {
        "takeovers": len(touched),
        "follow_ms": marks,
        "mostly_ms": percentiles([t.mostly_ms for t in touched if t.mostly_ms is not None]),
        "not_followed": missed,
        "silence_to_hold_s": percentiles(silences),
        "deaths": {
            "count": len(died),
            "silence_to_hold_s": percentiles([t.silence_s for t in died if t.silence_s is not None]),
        },
        "timeout_s": timeout,
        "worst_share_of_limit": {kind: round(share, 3) for kind, share in worst.items()},
        "limit_violations": violations,
        "failures": failures,
        "passed": not failures,
    }


def table(report: dict[str, Any]) -> str:
    """Return what people read of a report."""

    def marks(values: dict[str, float] | None, unit: str) -> str:
        return "none" if not values else "  ".join(f"{name} {value:g}" for name, value in values.items()) + f" {unit}"

    deaths = report["deaths"]
    worst = ", ".join(f"{kind} {share:.0%}" for kind, share in report["worst_share_of_limit"].items())
    lines = [
        f"{report['takeovers']} takeovers while the policy had the arm",
        f"command follows the hand    {marks(report['follow_ms'], 'ms')}   ({FOLLOWS:.0%} of the way)",
        f"and has mostly come there   {marks(report['mostly_ms'], 'ms')}   ({MOSTLY:.0%})",
        f"hands off to HOLD           {marks(report['silence_to_hold_s'], 's')}   (timeout {report['timeout_s']:g} s)",
        f"{deaths['count']:<3} killed, then HOLD       {marks(deaths['silence_to_hold_s'], 's')}",
        f"worst at a switch, of the limits: {worst}",
        f"limit violations at the controller: {report['limit_violations']}",
    ]
    failures = report["failures"]
    lines += [f"FAILED: {failure}" for failure in failures[:20]]
    lines.append("passed" if report["passed"] else f"{len(failures)} failures")
    return "\n".join(lines)


def draw(takeovers: Sequence[Takeover], path: Path) -> Path:
    """Draw how each touch was followed, and how soon."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for takeover in takeovers:
        if not takeover.died and len(takeover.trace[0]):
            left.plot(*takeover.trace, color="tab:orange", alpha=0.25, linewidth=1)
    left.axvline(ALLOWED_MS, color="tab:red", linewidth=1)
    left.axhline(FOLLOWS, color="grey", linewidth=0.8, linestyle=":")
    left.set(xlim=(-50, 300), ylim=(-0.3, 1.3), xlabel="ms since the operator's first message")
    left.set_ylabel("from the policy's velocity (0)\nto the operator's (1)")
    follow = [t.follow_ms for t in takeovers if t.follow_ms is not None]
    right.hist(follow, bins=np.arange(0, max([60.0, *follow]) + 2, 2), color="tab:orange")
    right.axvline(ALLOWED_MS, color="tab:red", linewidth=1)
    right.set(xlabel="ms until the command follows", ylabel="takeovers")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
