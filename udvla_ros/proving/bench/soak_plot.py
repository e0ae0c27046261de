"""Memory, latency and control cycles over time, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from udvla_ros.proving.bench.soak import MIB, SETTLED, Record

WINDOWS = 60  # pieces of the run whose percentiles are drawn


def draw(path: Path, record: Record, verdict: dict[str, Any], stage: str = "total") -> Path:
    """Write the picture."""
    figure, axes = plt.subplots(3, 1, figsize=(10, 9), sharex=True, constrained_layout=True)
    for name, samples in record.memory.items():
        times, sizes = (np.array(column, float) for column in zip(*samples, strict=True))
        told = verdict["memory"][name]
        slope = told["slope_mib_per_hour"]
        label = f"{name}, {told['mib']:.0f} MiB" + (f", {slope:+.1f} MiB/h" if slope is not None else "")
        late = times >= times[0] + SETTLED * (times[-1] - times[0])
        axes[0].plot(times / 60, (sizes - np.median(sizes[late])) / MIB, label=label)
    axes[0].set_ylabel("resident memory less its median, MiB")
    axes[0].grid(True, lw=0.3)
    axes[0].legend(fontsize=8, loc="lower right")
    _over_time(axes[1], record.latencies(stage), f"chunk, {stage}: ms")
    _over_time(axes[2], record.gaps(), "between two commands, ms")
    axes[2].set_xlabel("minutes")
    word = "passed" if verdict["passed"] else "FAILED"
    figure.suptitle(
        f"{word}: {verdict['seconds'] / 60:.1f} min, {verdict['chunks']} chunks, {verdict['episodes']} episodes, "
        f"p99 / p50 {verdict['p99_over_p50']}, {verdict['missed_cycles']} missed cycles",
        fontsize=10,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return path


def _over_time(axis: Axes, values: np.ndarray, label: str) -> None:
    """Draw every value as a dot and the percentiles of pieces of time as lines."""
    axis.set_ylabel(label)
    if not len(values):
        return
    times, y = values[:, 0] / 60, values[:, 1]
    axis.plot(times, y, ".", ms=2, color="#9ab", alpha=0.5, rasterized=True)
    edges = np.linspace(times[0], times[-1], min(WINDOWS, max(2, len(y) // 20)) + 1)
    piece = np.clip(np.searchsorted(edges, times, side="right") - 1, 0, len(edges) - 2)
    for percentile, colour in ((50, "#1f5fa8"), (99, "#c0392b")):
        found = [(i, np.percentile(y[piece == i], percentile)) for i in range(len(edges) - 1) if (piece == i).any()]
        axis.plot(
            [(edges[i] + edges[i + 1]) / 2 for i, _ in found],
            [v for _, v in found],
            color=colour,
            label=f"p{percentile}",
        )
    axis.set_ylim(bottom=0)
    axis.legend(fontsize=8, loc="upper right")
    axis.grid(True, lw=0.3)
