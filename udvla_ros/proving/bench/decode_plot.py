"""The picture of a decoding benchmark: where a chunk's time goes, contender by contender."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from udvla_ros.proving.bench.decode_rows import Report

STAGES = {"image_encode": "#9aa5b1", "prefill": "#4878a8", "denoise": "#e08214", "detokenise": "#5aae61"}


def draw(report: Report, path: Path) -> Path:
    """Write the medians by stage as stacked bars, with p95 as a mark; a log scale where decoders are far apart."""
    rows = report.rows[::-1]
    figure = Figure(figsize=(9, 1.2 + 0.55 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    totals = [row.timings_ms["total"]["p50"] for row in rows]
    for place, row in enumerate(rows):
        begin = 0.0
        for stage, colour in STAGES.items():
            width = row.timings_ms[stage]["p50"]
            axes.barh(place, width, left=begin, color=colour, label=stage if place == 0 else None, height=0.6)
            begin += width
        axes.plot(row.timings_ms["total"]["p95"], place, "k|", markersize=12, label="p95" if place == 0 else None)
        axes.annotate(
            f" {row.timings_ms['total']['p50']:.4g} ms, {row.slots_per_second:g} tokens/s",
            (row.timings_ms["total"]["p95"], place),
            va="center",
            fontsize=8,
        )
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    if max(totals) > 30 * min(totals):
        axes.set_xscale("log")
    else:
        axes.set_xlim(0, 1.35 * max(row.timings_ms["total"]["p95"] for row in rows))
    weights = ", random weights" if report.weights == "random" else ""
    axes.set_title(
        f"{report.bundle}{weights}: {report.prefix_tokens} + {report.suffix_tokens} tokens, {report.device}, "
        f"{report.threads} threads",
        fontsize=9,
    )
    axes.set_xlabel("ms per chunk, median by stage")
    axes.legend(fontsize=8, ncols=5, loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    return path
