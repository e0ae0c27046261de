"""What came of the faults: rows of the report, a table for people, and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from udvla_ros.proving.faults.scenarios import Scenario
from udvla_ros.proving.faults.trace import Steps

STEP = 1e-3  # rad beyond the limits from which on a change of the command counts as a jump
COLOURS = {"HOLD": "#dddddd", "POLICY": "#cfe8cf", "TELEOP": "#cfdcf0", "STOPPED": "#f3cccc", "": "#ffffff"}
BEFORE, COLUMNS = 1.5, 3
GAP = 0.1  # s without a command


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of one scenario.

    Attributes:
        rest: seconds to rest of the command and of the measured arm; None: it did not rest.
        step: see :class:`Steps`.
        violations, by_kind: of limits, at the controller and in what was published.
        resumed: what resumed by itself, in a line; empty is good.
        moved_again: whether it moved again after its first rest, whoever had the arm.
        mode, reason: of the arbiter at the end.
        notes: what else there is to say; ``unsafe`` true fails it.
        curve: times [n] s from the fault and greatest commanded joint speed [n] rad/s.
        modes: (s from the fault, mode).
        repeats: how often it was run.
    """

    scenario: Scenario
    rest: Mapping[str, float | None]
    step: Steps
    violations: int
    by_kind: Mapping[str, int]
    resumed: str
    moved_again: bool
    mode: str
    reason: str
    notes: Mapping[str, object]
    curve: tuple[np.ndarray, np.ndarray]
    modes: Sequence[tuple[float, str]]
    repeats: int = 1

    @property
    def time_to_rest(self) -> float | None:
        """Seconds until both the command and the measured arm rest."""
        values = list(self.rest.values())
        return None if any(value is None for value in values) else max(v for v in values if v is not None)

    def faults(self) -> list[str]:
        """Return what is not as it must be, a line each."""
        rest, scenario = self.time_to_rest, self.scenario
        found = []
        if rest is None:
            found.append("did not come to rest")
        elif rest > scenario.rest_within:
            found.append(f"rested after {rest:.2f} s, {scenario.rest_within:g} s are allowed")
        if self.step.beyond > STEP:
            found.append(f"a step of {self.step.beyond:.4f} rad beyond the limits")
        if self.violations:
            found.append(f"{self.violations} limit violations: {dict(self.by_kind)}")
        if self.resumed:
            found.append(f"resumed by itself: {self.resumed}")
        if self.mode not in scenario.ends:
            found.append(f"ended in {self.mode} ({self.reason}), not in {' or '.join(scenario.ends)}")
        if self.notes.get("unsafe"):
            found.append(f"unsafe: {dict(self.notes)}")
        return found

    @classmethod
    def worst(cls, outcomes: Sequence[Outcome]) -> Outcome:
        """Return one outcome with the worst of each number; the curve is that of the longest way to rest."""

        def slowest(outcome: Outcome) -> float:
            return np.inf if outcome.time_to_rest is None else outcome.time_to_rest

        worst = max(outcomes, key=lambda o: (len(o.faults()), slowest(o)))
        longest = max(outcomes, key=slowest)
        kinds = {kind for o in outcomes for kind in o.by_kind}
        return cls(
            scenario=worst.scenario, rest=longest.rest,
            step=Steps(
                max(o.step.worst for o in outcomes),
                max(o.step.beyond for o in outcomes),
                max(o.step.gap for o in outcomes),
            ),
            violations=sum(o.violations for o in outcomes),
            by_kind={kind: sum(o.by_kind.get(kind, 0) for o in outcomes) for kind in sorted(kinds)},
            resumed=next((o.resumed for o in outcomes if o.resumed), ""),
            moved_again=any(o.moved_again for o in outcomes),
            mode=worst.mode, reason=worst.reason, notes=worst.notes, curve=longest.curve, modes=longest.modes,
            repeats=len(outcomes),
        )  # fmt: skip

    def row(self) -> dict[str, Any]:
        """Return the outcome as the report lists it."""

        def number(value: float | None, digits: int = 4) -> float | None:
            return None if value is None or not np.isfinite(value) else round(value, digits)

        return {
            "name": self.scenario.name,
            "time_to_rest_s": number(self.time_to_rest),
            "worst_step_rad": number(self.step.worst, 6),
            "limit_violations": self.violations,
            "resumed_by_itself": bool(self.resumed),
            "what": self.scenario.what,
            "rest_within_s": self.scenario.rest_within,
            "command_rest_s": number(self.rest["command"]),
            "measured_rest_s": number(self.rest.get("measured")),
            "step_beyond_limits_rad": number(self.step.beyond, 6),
            "longest_gap_s": number(self.step.gap),
            "violations_by_kind": dict(self.by_kind),
            "moved_again": self.moved_again,
            "mode": self.mode,
            "reason": self.reason,
            "repeats": self.repeats,
            "notes": dict(self.notes),
            "failures": self.faults(),
        }


def table(report: Mapping[str, Any]) -> str:
    """Return what people read of a report."""
    lines = _link(rows) if (rows := [row for row in report["faults"] if "worst" in row["notes"]]) else []
    rows = [row for row in report["faults"] if "worst" not in row["notes"]]
    head = f"{'fault':32} {'rest s':>7} {'step rad':>9} {'gap s':>6} {'beyond':>8} {'viol.':>5} {'resumed':>7}  ends in"
    lines += [head] if rows else []
    for row in rows:
        gap = row["longest_gap_s"] or 0.0
        rest = "never" if row["time_to_rest_s"] is None else f"{row['time_to_rest_s']:.2f}"
        beyond = "inf" if row["step_beyond_limits_rad"] is None else f"{row['step_beyond_limits_rad']:.4f}"
        step = "inf" if row["worst_step_rad"] is None else f"{row['worst_step_rad']:.4f}"
        lines.append(
            f"{row['name']:32} {rest:>7} {step:>9} {gap:>6.3f} {beyond:>8} {row['limit_violations']:>5} "
            f"{'yes' if row['resumed_by_itself'] else 'no':>7}  {row['mode']}: {row['reason']}"
        )
        lines += [f"    FAILED: {text}" for text in row["failures"]]
    cpu = report.get("arbiter_cpu_percent")
    if cpu:
        lines.append(f"arbiter at 100 Hz: {cpu['p50']:.1f}% of a core at the median, {cpu['p95']:.1f}% at p95")
    return "\n".join(lines)


def _link(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the table of the faults between arbiter and controller: parts of the limits of what the latter wrote."""
    head = f"{'at the controller, 500 Hz':26} {'rest s':>7} {'vel.':>5} {'acc.':>5} {'jerk':>5} {'TCP':>5}"
    lines = [f"{head} {'skipped mrad':>12} {'viol.':>5} {'resumed':>7}  ends in"]
    for row in rows:
        worst = row["notes"]["worst"]
        rest = "never" if row["time_to_rest_s"] is None else f"{row['time_to_rest_s']:.2f}"
        parts = " ".join(f"{worst[kind]:5.2f}" for kind in ("velocity", "acceleration", "jerk", "tcp_speed"))
        resumed = "yes" if row["resumed_by_itself"] else "no"
        lines.append(
            f"{row['name']:26} {rest:>7} {parts} {worst.get('skipped', 0.0) * 1e3:12.2f} {row['limit_violations']:>5} "
            f"{resumed:>7}  {row['mode']}: {row['reason'][:60]}"
        )
        lines += [f"    FAILED: {text}" for text in row["failures"]]
    return lines


def plot(path: Path, outcomes: Sequence[Outcome]) -> Path:
    """Draw the commanded speed about each fault, over the arbiter's mode; returns the file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = min(COLUMNS, len(outcomes))
    rows = -(-len(outcomes) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(5.0 * columns, 2.3 * rows + 0.6), squeeze=False)
    for axis in axes.flat[len(outcomes) :]:
        axis.axis("off")
    for axis, outcome in zip(axes.flat, outcomes, strict=False):
        t, speed = outcome.curve
        end = max(6.0, (outcome.time_to_rest or 0.0) + 3.0)
        changes = [*outcome.modes, (np.inf, "")]
        for (begin, mode), (until, _) in pairwise(changes):
            if until > -BEFORE and begin < end:
                axis.axvspan(max(begin, -BEFORE), min(until, end), color=COLOURS.get(mode, "#ffffff"), lw=0)
        shown = (t > -BEFORE) & (t < end)
        silent = np.diff(t, prepend=t[:1]) > GAP  # nothing was commanded: no line across
        axis.plot(t[shown], np.where(silent, np.nan, speed)[shown], color="black", lw=0.8)
        axis.axvline(0.0, color="#c00000", lw=1.0)
        if outcome.time_to_rest is not None:
            axis.axvline(outcome.time_to_rest, color="#0060a0", lw=1.0, ls="--")
        axis.set_xlim(-BEFORE, end)
        axis.set_title(outcome.scenario.name + (" FAILED" if outcome.faults() else ""), fontsize=9)
        axis.tick_params(labelsize=7)
    legend = "s from the fault (red); dashed: at rest\ngreen POLICY, blue TELEOP, grey HOLD, red STOPPED"
    figure.supxlabel(legend, fontsize=8)
    figure.supylabel("fastest joint, rad/s", fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path
