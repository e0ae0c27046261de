"""The report of the arm's side as a picture: commands over switches, their jerk, and what a message costs."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from udvla_ros.motion.robot import RobotDescription
from udvla_ros.proving.bench.safety_bench import DT, SafetyReport
from udvla_ros.proving.bench.seams import TICK, jerk

COLOURS = {"stitched": "#1f5fa8", "chunk_after_chunk": "#c0392b", "reanchored": "#d9902f"}
SHOWN = 2.4  # s of commands


def draw(path: Path, robot: RobotDescription, result: SafetyReport, budget_ms: float) -> Path:
    """Write the picture."""
    figure, axes = plt.subplots(2, 2, figsize=(13, 8), constrained_layout=True)
    joint = _commands(axes[0, 0], axes[1, 0], result)
    axes[0, 0].set_ylabel(f"command of {robot.joints[joint]}, rad")
    _bars(axes[0, 1], result)
    _costs(axes[1, 1], result, budget_ms)
    figure.suptitle(
        f"{robot.name}: {result.messages} chunks at up to {result.step / DT:.2g} m/s, the next one asked for when one "
        f"arrives; blend {result.stitch.blend:g} s, frozen {result.stitch.frozen:g} s",
        fontsize=10,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return path


def _commands(places: Axes, jerks: Axes, result: SafetyReport) -> int:
    """Draw the busiest joint and the jerk at the beginning, where all go to the same goal; return the joint."""
    curve = result.traces["stitched"].curve
    count = min(round(SHOWN / TICK), len(curve) - 3)
    shown = slice(0, count)
    joint = int(np.ptp(curve[shown], axis=0).argmax())
    times = TICK * np.arange(count)
    for name, trace in result.traces.items():
        places.plot(times, trace.curve[shown, joint], color=COLOURS[name], label=name.replace("_", " "), lw=1.4)
        jerks.semilogy(times, np.maximum(jerk(trace.curve)[shown], 1e-1)[: len(times)], color=COLOURS[name], lw=1)
    for switch in result.traces["stitched"].switches:
        if switch < count:
            for axis in (places, jerks):
                axis.axvline(TICK * switch, color="#bbb", lw=0.8, zorder=0)
    places.legend(fontsize=8)
    jerks.set_ylabel("jerk of all joints, rad/s$^3$")
    jerks.set_xlabel("s; grey: another chunk begins to take over")
    return joint


def _bars(axis: Axes, result: SafetyReport) -> None:
    for i, (name, seam) in enumerate(result.seams.items()):
        for k, part in enumerate(("at_seams", "inside", "overall")):
            axis.bar(i + 0.27 * (k - 1), max(seam[part] or 0.0, 0.1), 0.25, color=COLOURS[name], alpha=1 - 0.3 * k)
        ratio = seam["ratio"]
        said = "" if ratio is None else f"{ratio:.2f}x"
        axis.text(i - 0.27, (seam["at_seams"] or 0.1) * 1.1, said, ha="center", fontsize=9)
    axis.set_yscale("log")
    axis.set_xticks(range(len(result.seams)), [name.replace("_", " ") for name in result.seams])
    axis.set_ylabel("RMS jerk at seams, inside chunks, in all; rad/s$^3$")


def _costs(axis: Axes, result: SafetyReport, budget_ms: float) -> None:
    values = np.array(result.offers)
    axis.hist(np.minimum(values, 3 * budget_ms), bins=60, color="#1f5fa8")
    axis.axvline(budget_ms, color="#c0392b", lw=1, label=f"budget {budget_ms:g} ms")
    for name in ("p50", "p99"):
        axis.axvline(result.offer_ms[name], color="#333", ls=":", lw=1, label=f"{name} {result.offer_ms[name]:.2f} ms")
    axis.set_xlim(0, 3.05 * budget_ms)
    axis.set_xlabel("ms from message to verified plan; the last bar holds all beyond")
    axis.set_ylabel("messages")
    axis.legend(fontsize=8)
