"""A table as a picture: success with its intervals, row by row, or along a sweep, beside what a chunk costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from udvla_ros.evaluation.tables.table import ALL

Row = Mapping[str, Any]
COLOURS = {ALL: "#222222", "touch": "#1f5fa8", "pick": "#e08214", "push": "#1a9850", "place": "#8e44ad"}
LATENCY, REFERENCE = "#4878a8", "#bbbbbb"


def draw(result: Mapping[str, Any], path: Path) -> Path:
    """Write the picture of a table's JSON."""
    figure = _curve(result) if result["sweep"] else _bars(result)
    FigureCanvasAgg(figure)
    figure.suptitle(result["title"], fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    return path


def _parts(result: Mapping[str, Any]) -> list[str]:
    return [*result["tasks"], *([ALL] if len(result["tasks"]) > 1 else [])]


def _spread(part: Mapping[str, Any]) -> tuple[float, float]:
    low, high = part["ci95"]
    return max(0.0, 100 * (part["rate"] - low)), max(0.0, 100 * (high - part["rate"]))


def _bars(result: Mapping[str, Any]) -> Figure:
    """Draw one panel per task and one of latency; rows from top to bottom, as in the table."""
    rows, parts = result["rows"][::-1], _parts(result)
    timed = len({row["timing"]["tokens_per_second"] for row in rows if row["timing"]}) > 1  # else: nothing to compare
    seeded = any(len(row["by_training_seed"]) > 1 for row in rows)
    count = len(parts) + timed
    figure = Figure(figsize=(2.6 + 2.4 * count, 1.5 + 0.5 * len(rows)), layout="constrained")
    panels = figure.subplots(1, count, sharey=True, squeeze=False)[0]
    for axes, part in zip(panels, parts, strict=False):
        colour = COLOURS[part]
        for place, row in enumerate(rows):
            told = row["success"][part]
            if row["name"] == result["reference"]:
                axes.axvline(100 * told["rate"], color=REFERENCE, lw=1, zorder=0)
            axes.errorbar(
                100 * told["rate"], place, xerr=[[side] for side in _spread(told)], fmt="o", color=colour, capsize=3
            )
            seeds = row["by_training_seed"].values()
            if len(seeds) > 1:
                axes.plot([100 * each[part]["rate"] for each in seeds], [place] * len(seeds), "|", color=colour, ms=11)
        axes.set_title("all tasks" if part == ALL else part, fontsize=10)
        axes.set_xlim(-3, 103)
        axes.set_xticks(range(0, 101, 25))
        axes.set_xlabel("success, %" + ("  (|: one training seed)" if seeded else ""), fontsize=9)
        axes.grid(True, axis="x", lw=0.3)
    if timed:
        _latencies(panels[-1], rows)
    panels[0].set_yticks(range(len(rows)), [row["label"] for row in rows])
    panels[0].set_ylim(-0.6, len(rows) - 0.4)
    return figure


def _latencies(axes: Axes, rows: Sequence[Row]) -> None:
    for place, row in enumerate(rows):
        if not row["timing"]:
            continue
        times = row["timing"]["chunk_ms"]
        axes.plot([times["p50"], times["p95"]], [place, place], color=LATENCY, lw=2)
        axes.plot(times["p50"], place, "o", color=LATENCY)
        axes.annotate(
            f"{row['timing']['tokens_per_second']:,.0f} tokens/s",
            (times["p50"], place),
            (0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=7,
        )
    axes.set_title("chunk", fontsize=10)
    times = [row["timing"]["chunk_ms"] for row in rows if row["timing"]]
    low, high = min(t["p50"] for t in times), max(t["p95"] for t in times)
    room = 2 * (high / low) ** 0.2  # for the words at either end
    _logarithmic(axes, "x", (1, 2, 5) if high < 10 * low else (1, 3))
    axes.set_xlim(low / room, high * room)
    axes.set_xlabel("ms, p50 to p95", fontsize=9)


def _curve(result: Mapping[str, Any]) -> Figure:
    """Draw success and latency against the swept option, on a logarithmic axis; one line style per base row."""
    bases: dict[str, list[Row]] = {}
    for row in result["rows"]:
        bases.setdefault(row["point"][0], []).append(row)
    timed = any(row["timing"] for row in result["rows"])
    figure = Figure(figsize=(6.5 * (1 + timed), 4.6), layout="constrained")
    panels = figure.subplots(1, 1 + timed, squeeze=False)[0]
    parts = _parts(result)
    for style, (base, rows) in zip(("-", "--", ":", "-."), bases.items(), strict=False):
        rows = sorted(rows, key=lambda row: row["point"][1])
        values = [row["point"][1] for row in rows]
        told = f"{base}, " if len(bases) > 1 else ""
        for part in parts:
            main = part == parts[-1]
            panels[0].errorbar(
                values,
                [100 * row["success"][part]["rate"] for row in rows],
                yerr=list(zip(*(_spread(row["success"][part]) for row in rows), strict=True)) if main else None,
                fmt="o" + style,
                color=COLOURS[part],
                capsize=3,
                ms=5 if main else 3,
                lw=2 if main else 1,
                label=told + ("all tasks" if part == ALL else part),
            )
        if timed:
            timings = [(row["point"][1], row["timing"]["chunk_ms"]) for row in rows if row["timing"]]
            at = [value for value, _ in timings]
            middle, tail = ([times[p] for _, times in timings] for p in ("p50", "p95"))
            panels[1].plot(at, middle, "o" + style, color=LATENCY, label=told + "p50")
            panels[1].fill_between(at, middle, tail, color=LATENCY, alpha=0.2, label=told + "to p95")
    word = result["sweep"].replace("_", " ")
    for axes in panels:
        _logarithmic(axes, "x")
        values = sorted({row["point"][1] for row in result["rows"]})
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(word)
        axes.grid(True, lw=0.3)
        axes.legend(fontsize=8)
    panels[0].set_ylim(-3, 103)
    panels[0].set_ylabel("success, %")
    if timed:
        _logarithmic(panels[1], "y")
        panels[1].set_ylabel("ms per chunk, images in to actions out")
    return figure


def _logarithmic(axes: Axes, which: str, subs: tuple[int, ...] = (1, 2, 5)) -> None:
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(ScalarFormatter())
    axis.set_minor_formatter(NullFormatter())
    axes.grid(True, axis="x" if which == "x" else "y", lw=0.3)
