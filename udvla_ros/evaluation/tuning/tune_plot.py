"""The Pareto front as a picture: what each way of decoding takes, against what it is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import ScalarFormatter

from udvla_ros.evaluation.tuning.tune_front import front

Row = Mapping[str, Any]
EXACT, APPROXIMATE, CHOSEN = "#1f5fa8", "#c0392b", "#1a9850"


def draw(path: Path, rows: Sequence[Row], chosen: Row | None, title: str, budget_ms: float | None = None) -> Path:
    """Write the picture: agreement, how far actions are, and success where there were episodes."""
    simulated = [row for row in rows if "success" in row]
    count = 3 if simulated else 2
    figure, axes = plt.subplots(1, count, figsize=(6.2 * count, 5.2), constrained_layout=True)
    _panel(axes[0], rows, "agreement", chosen, budget_ms)
    axes[0].set_ylabel("agreement with the reference's actions\n(1: the same distribution)")
    _distances(axes[1], rows, chosen, budget_ms)
    if simulated:
        _panel(axes[2], simulated, "success", chosen, budget_ms)
        axes[2].set_ylabel("success in simulation, 95% interval")
    figure.suptitle(title, fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _panel(axis: Axes, rows: Sequence[Row], worth: str, chosen: Row | None, budget: float | None) -> None:
    best = front(rows, worth)
    names = {row["name"] for row in best} | ({chosen["name"]} if chosen else set()) | {"reference"}
    for row in rows:
        value = row["success"]["rate"] if worth == "success" else row["agreement"]
        x, tail = row["latency_ms"]["p50"], row["latency_ms"]["p95"] - row["latency_ms"]["p50"]
        spread = None
        if worth == "success":
            low, high = row["success"]["ci95"]
            spread = [[max(0.0, value - low)], [max(0.0, high - value)]]
        axis.errorbar(
            x,
            value,
            xerr=[[0.0], [max(tail, 0.0)]],
            yerr=spread,
            fmt="o" if row["exact"] else "^",
            ms=5,
            lw=0.6,
            color=EXACT if row["exact"] else APPROXIMATE,
            alpha=0.9 if row["name"] in names else 0.45,
        )
    steps = [(r["latency_ms"]["p50"], r["success"]["rate"] if worth == "success" else r["agreement"]) for r in best]
    axis.plot(*zip(*steps, strict=True), drawstyle="steps-post", color="#888888", lw=1, zorder=0)
    _labels(axis, [row for row in rows if row["name"] in names], worth)
    if chosen is not None and (worth != "success" or "success" in chosen):
        value = chosen["success"]["rate"] if worth == "success" else chosen["agreement"]
        axis.plot(chosen["latency_ms"]["p50"], value, "o", ms=13, mfc="none", mec=CHOSEN, mew=2)
    _finish(axis, budget)


def _labels(axis: Axes, rows: Sequence[Row], worth: str) -> None:
    """Name points above and below in turn, so that neighbours stay readable."""
    for index, row in enumerate(sorted(rows, key=lambda r: r["latency_ms"]["p50"])):
        value = row["success"]["rate"] if worth == "success" else row["agreement"]
        up = index % 2 == 0
        axis.annotate(
            row["name"],
            (row["latency_ms"]["p50"], value),
            (4, 8 if up else -14),
            textcoords="offset points",
            fontsize=7,
            color="#333333",
        )


def _distances(axis: Axes, rows: Sequence[Row], chosen: Row | None, budget: float | None) -> None:
    part = next(name for name in ("translation", "joints") if name in rows[0])
    unit, scale = ("mm", 1e3) if rows[0][part]["unit"] == "m" else ("mrad", 1e3)
    for row in rows:
        axis.plot(
            row["latency_ms"]["p50"],
            row[part]["rmse"] * scale,
            "o" if row["exact"] else "^",
            ms=5,
            color=EXACT if row["exact"] else APPROXIMATE,
            alpha=0.8,
        )
        if chosen is not None and row["name"] == chosen["name"]:
            axis.plot(row["latency_ms"]["p50"], row[part]["rmse"] * scale, "o", ms=13, mfc="none", mec=CHOSEN, mew=2)
    spread = rows[0][part]["spread"] * scale
    axis.axhline(spread, color="#888888", lw=1, ls="--")
    axis.annotate(
        "the reference with itself, other seeds",
        (0.99, spread),
        xycoords=("axes fraction", "data"),
        ha="right",
        va="bottom",
        fontsize=7,
        color="#555555",
    )
    axis.set_ylabel(f"RMSE of one action ({part}), {unit}")
    axis.set_ylim(0, 1.15 * max(spread, *(row[part]["rmse"] * scale for row in rows)))
    _finish(axis, budget)


def _finish(axis: Axes, budget: float | None) -> None:
    if budget is not None:
        axis.axvline(budget, color=CHOSEN, lw=1, ls=":")
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.margins(x=0.12)
    axis.set_xlabel("ms per chunk, images in to actions out: p50, whisker to p95")
    axis.grid(True, which="both", lw=0.3, alpha=0.6)
    axis.plot([], [], "o", color=EXACT, label="exact")
    axis.plot([], [], "^", color=APPROXIMATE, label="approximate options")
    axis.legend(loc="lower right", fontsize=7)
