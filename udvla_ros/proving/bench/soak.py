"""Does it stay as it is? Memory, latencies and control cycles of a graph that runs for a long time, judged.

Memory is resident size. It is called constant where a line through it (Theil and Sen: the median of all slopes, which
a single jump does not turn) rises by less than what a process of its size may gain by chance.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import theilslopes

from udvla_ros.evaluation.intervals import percentiles

MIB = 2**20
SETTLED = 0.2  # share of the run after which memory is looked at: allocators grow into their work first
MAY_GROW, MAY_GROW_MIB = 0.02, 4.0  # of a process's size, or in MiB, whichever is more, over the judged part
MOST_TAIL = 2.0  # p99 over p50 of the chunks' latency
MISSED = 2.5  # control periods between two commands that are a missed cycle
MOST_POINTS = 2000  # of a line through the memory


def resident(pid: int) -> int | None:
    """Return the resident size of a process in bytes; None where it has ended or nobody can tell."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        return None
    return None


@dataclass
class Record:
    """What was noted, times in s since the begin.

    Attributes:
        period: s between two commands.
        memory: (time, bytes) by process.
        beside: processes that are not the graph's, whose memory is told and not judged (the one that keeps this).
        chunks: (time, ``timings_ms``).
        commands: stamps.
        episodes: (time, success).
    """

    period: float = 0.01
    memory: dict[str, list[tuple[float, int]]] = field(default_factory=dict)
    beside: frozenset[str] = frozenset()
    chunks: list[tuple[float, Mapping[str, float]]] = field(default_factory=list)
    commands: array[float] = field(default_factory=lambda: array("d"))
    episodes: list[tuple[float, bool]] = field(default_factory=list)

    def sample(self, now: float, pids: Mapping[str, int]) -> None:
        """Note the memory of processes."""
        for name, pid in pids.items():
            size = resident(pid)
            if size is not None:
                self.memory.setdefault(name, []).append((now, size))

    def latencies(self, stage: str) -> np.ndarray:
        """Return (time, ms) [n, 2] of one stage."""
        return np.array([(t, timings[stage]) for t, timings in self.chunks if stage in timings]).reshape(-1, 2)

    def gaps(self) -> np.ndarray:
        """Return (time, ms since the command before) [n, 2]."""
        stamps = np.sort(np.array(self.commands))
        return np.stack([stamps[1:], 1e3 * np.diff(stamps)], 1) if len(stamps) > 1 else np.zeros((0, 2))


def growth(samples: Sequence[tuple[float, int]]) -> dict[str, Any]:
    """Return size and growth of one process's memory, and whether it is constant.

    ``slope_mib_per_hour`` is of the part after it settled; ``constant`` is None with too little to say.
    """
    times, sizes = (np.array(column, float) for column in zip(*samples, strict=True))
    late = times >= times[0] + SETTLED * (times[-1] - times[0])
    times, sizes = times[late], sizes[late] / MIB
    told: dict[str, Any] = {"mib": round(float(np.median(sizes)), 1), "most_mib": round(float(sizes.max()), 1)}
    if len(times) < 10:
        return {**told, "slope_mib_per_hour": None, "grown_mib": None, "constant": None}
    every = max(1, len(times) // MOST_POINTS)
    slope = float(theilslopes(sizes[::every], times[::every])[0])
    grown = slope * float(times[-1] - times[0])
    allowed = max(MAY_GROW * told["mib"], MAY_GROW_MIB)
    return {
        **told,
        "slope_mib_per_hour": round(3600 * slope, 2),
        "grown_mib": round(grown, 2),
        "allowed_mib": round(allowed, 2),
        "constant": grown <= allowed,
    }


def judge(record: Record, seconds: float, stage: str = "total") -> dict[str, Any]:
    """Return the report's verdict over a run of so many seconds.

    ``passed`` asks for constant memory of every process and for p99 of the chunks' ``stage`` within twice the median.
    """
    memory = {name: growth(samples) for name, samples in record.memory.items() if samples}
    stages = dict.fromkeys(name for _, timings in record.chunks for name in timings)
    latency = {name: percentiles(record.latencies(name)[:, 1]) for name in stages}
    tail = round(latency[stage]["p99"] / latency[stage]["p50"], 3) if stage in latency else None
    gaps = record.gaps()[:, 1]
    missed = int((gaps > 1e3 * MISSED * record.period).sum())
    steady = [told["constant"] for name, told in memory.items() if name not in record.beside]
    constant = bool(steady) and all(value is True for value in steady)
    return {
        "seconds": round(seconds, 1),
        "chunks": len(record.chunks),
        "episodes": len(record.episodes),
        "successes": sum(success for _, success in record.episodes),
        "memory": memory,
        "latency_ms": latency,
        "p99_over_p50": tail,
        "drift": _drift(record, stage),
        "commands": len(record.commands),
        "tick_gap_ms": {**percentiles(gaps), "most": round(float(gaps.max()), 1)} if len(gaps) else {},
        "missed_cycles": missed,
        "memory_constant": constant,
        "latency_steady": tail is not None and tail <= MOST_TAIL,
        "passed": constant and tail is not None and tail <= MOST_TAIL,
    }


def _drift(record: Record, stage: str) -> float | None:
    """Return the median latency of the last fifth over that of the first; None with too few chunks."""
    values = record.latencies(stage)[:, 1]
    fifth = len(values) // 5
    if fifth < 3:
        return None
    return round(float(np.median(values[-fifth:]) / np.median(values[:fifth])), 3)
