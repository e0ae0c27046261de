"""How well scores tell failures: AUROC, false alarms, lead time, and what help at an alarm is worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from udvla_ros.errors import ConfigError
from udvla_ros.evaluation.cases import Trial, make_case, scene_seeds
from udvla_ros.evaluation.intervals import rate_with_interval
from udvla_ros.evaluation.watch.disturbances import KINDS
from udvla_ros.evaluation.watch.runs import WatchedCase
from udvla_ros.monitor.calibration import IGNORED, Calibration
from udvla_ros.monitor.episode import ScoredEpisode
from udvla_ros.monitor.watch import Watch
from udvla_ros.sim.tasks import tasks_of

LEAD = 0.5  # s before the end up to which a score counts
GRASPS = ("pick", "place")  # kinds of task in which a gripper can slip
MONITOR = "monitor"
Score = Callable[[Mapping[str, float]], "float | None"]


def watched_cases(counts: Mapping[str, int], seed: int, tasks: Sequence[str], trial: Trial) -> list[WatchedCase]:
    """Return cases of each kind of disturbance, the kinds of task in turn.

    Raises:
        ConfigError: no such kind.
    """
    cases = []
    for kind, count in counts.items():
        if kind not in KINDS:
            raise ConfigError(f"nothing is called '{kind}'; there are: {', '.join(KINDS)}")
        fitting = [task for task in tasks if kind != "slips" or task in GRASPS]
        if not fitting or not count:
            continue
        offset = seed + 10_000 * list(KINDS).index(kind)
        for number, scene in enumerate(scene_seeds(count, offset)):
            ways = tasks_of(fitting[number % len(fitting)])
            cases.append(WatchedCase(make_case(scene, ways[(number // len(fitting)) % len(ways)], trial), kind))
    return cases


def auroc(failed: Sequence[float], succeeded: Sequence[float]) -> float | None:
    """Return how often a failure has the higher value than a success, ties half; None without either."""
    if not len(failed) or not len(succeeded):
        return None
    above = np.asarray(failed, float)[:, None] - np.asarray(succeeded, float)[None]
    return round(float(((above > 0) + 0.5 * (above == 0)).mean()), 3)


def highest(episode: ScoredEpisode, score: Score, lead: float = LEAD) -> float:
    """Return the highest value of a score up to ``lead`` s before an episode's end, 0 where it never had one."""
    values = (score(s) for t, s in zip(episode.times, episode.scores, strict=True) if t <= episode.seconds - lead)
    return max((value for value in values if value is not None), default=0.0)


def alarm_time(episode: ScoredEpisode, watch: Watch) -> float | None:
    """Return when the monitor would have raised its first alarm, s; None: never."""
    watch = watch.anew()
    for time, scores in zip(episode.times, episode.scores, strict=True):
        if watch.update(scores).alarm:
            return time
    return None


def prove(episodes: Sequence[ScoredEpisode], calibration: Calibration, patience: int = 0) -> dict[str, Any]:
    """Return the report on episodes that the calibration has not seen.

    Failures of each kind stand against the undisturbed successes; in ``all``, every failure against every success.
    """
    usual = [e for e in episodes if e.success and e.kind == "plain"]
    good, failed = [e for e in episodes if e.success], [e for e in episodes if not e.success]
    by_kind = {kind: [e for e in failed if e.kind == kind] for kind in KINDS}
    by_kind = {kind: found for kind, found in by_kind.items() if found}
    names = [*calibration.reference, *IGNORED]
    scores: dict[str, Score] = {MONITOR: calibration.total} | {name: _named(name) for name in names}
    table = {}
    for name, score in scores.items():
        against = [highest(e, score) for e in usual]
        of = {kind: [highest(e, score) for e in found] for kind, found in by_kind.items()}
        table[name] = {
            "all": auroc([v for values in of.values() for v in values], [highest(e, score) for e in good]),
            "against plain": auroc([v for values in of.values() for v in values], against),
            **{kind: auroc(values, against) for kind, values in of.items()},
        }
    watch = Watch(calibration, patience)
    first = {id(e): alarm_time(e, watch) for e in episodes}
    false = [e for e in usual if first[id(e)] is not None]
    hours = sum(e.seconds for e in usual) / 3600.0
    seen = {}
    for kind, found in by_kind.items():
        leads = [e.seconds - t for e in found if (t := first[id(e)]) is not None]
        early = [lead for lead in leads if lead >= LEAD]
        seen[kind] = {
            "failures": len(found), "alarms": len(leads), "alarms_in_time": len(early),
            "lead_s_median": round(float(np.median(leads)), 2) if leads else None,
        }  # fmt: skip
    return {
        "episodes": len(episodes), "successes": len(good), "failures": len(failed), "plain_successes": len(usual),
        "threshold": watch.threshold, "patience": watch.patience, "rate": calibration.rate,
        "false_alarms": {"count": len(false), "per_hour": round(len(false) / max(hours, 1e-9), 1)}
        | rate_with_interval(len(false), len(usual)),
        "seen": seen, "auroc": table, "weights": calibration.weights,
    }  # fmt: skip


def help_report(alone: Sequence[ScoredEpisode], helped: Sequence[ScoredEpisode]) -> dict[str, Any]:
    """Return success of the policy alone and with help at an alarm, over the same scenes."""
    found = {}
    for kind in ("all", *KINDS):
        rows = [[e for e in run if kind in ("all", e.kind)] for run in (alone, helped)]
        if not rows[1]:
            continue
        names = {(e.kind, e.seed) for e in rows[1]}
        same = [[e for e in run if (e.kind, e.seed) in names] for run in rows]
        told = [rate_with_interval(sum(e.success for e in run), len(run)) | {"episodes": len(run)} for run in same]
        asked = sum(bool(e.alarms) for e in same[1])
        found[kind] = {"alone": told[0], "with_help": told[1], "asked": asked}
    return found


def _named(name: str) -> Score:
    return lambda scores: scores.get(name)


def text(report: Mapping[str, Any]) -> str:
    """Return the report as a table in Markdown."""
    kinds = list(report["seen"])
    head = ["score", "all", "against plain", *kinds]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for name, row in report["auroc"].items():
        cells = ["–" if row.get(k) is None else f"{row[k]:.2f}" for k in head[1:]]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    seen = report["seen"]
    lines.append(f"| failures | {report['failures']} | {report['failures']} | "
                 + " | ".join(str(seen[k]["failures"]) for k in kinds) + " |")  # fmt: skip
    lines.append("| alarms 0.5 s or more before the end | | | "
                 + " | ".join(str(seen[k]["alarms_in_time"]) for k in kinds) + " |")  # fmt: skip
    lines.append("| lead time, median s | | | "
                 + " | ".join(str(seen[k]["lead_s_median"] or "–") for k in kinds) + " |")  # fmt: skip
    alarms = report["false_alarms"]
    lines += ["", f"False alarms: {alarms['count']} of {report['plain_successes']} undisturbed successes "
              f"({alarms['rate']:.0%}, 95% interval {alarms['ci95'][0]:.0%} to {alarms['ci95'][1]:.0%}; "
              f"{report['rate']:.0%} were allowed), {alarms['per_hour']} per hour of motion."]  # fmt: skip
    if "help" in report:
        lines += ["", "| scenes | alone | with help at an alarm | asked for help |", "|---|---|---|---|"]
        for kind, row in report["help"].items():
            lines.append(f"| {kind} ({row['alone']['episodes']}) | {row['alone']['rate']:.0%} "
                         f"| {row['with_help']['rate']:.0%} | {row['asked']} |")  # fmt: skip
    return "\n".join(lines)


def picture(report: Mapping[str, Any], episodes: Sequence[ScoredEpisode], path: Any) -> None:
    """Draw the AUROC of each score, and the monitor's level over time of successes and failures."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 1, figsize=(8, 4.2), layout="constrained")
    table = dict(sorted(report["auroc"].items(), key=lambda row: row[1]["all"] or 0.0))
    table = {name: row for name, row in table.items() if row["all"] is not None and row["all"] != 0.5}
    baselines = [name in IGNORED for name in table]
    colours = ["#8a5a00" if base else "#0b6e4f" if name == MONITOR else "#9db5ab"
               for name, base in zip(table, baselines, strict=True)]  # fmt: skip
    axes.barh(list(table), [row["all"] for row in table.values()], color=colours)
    for place, row in enumerate(table.values()):
        axes.text(row["all"] + 0.004, place, f"{row['all']:.2f}", va="center", fontsize=8)
    axes.set_xlim(0.5, 1.0)
    axes.set_xlabel(f"AUROC of failures, {LEAD} s or more before the end "
                    f"({report['failures']} failures, {report['successes']} successes)")  # fmt: skip
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
