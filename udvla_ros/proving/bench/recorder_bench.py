"""What recording costs, and whether the bag holds everything: numbers, verdict, picture. Needs no ROS."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mcap.reader import make_reader

from udvla_ros.rollouts.bags.reader import Bag
from udvla_ros.rollouts.bags.source import BULKY

CPU_SHARE, RATE_CHANGE = 0.15, 0.02  # of a core; of the arbiter's rate
TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used, in s, all its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


@dataclass
class Phase:
    """One stretch of time at full load.

    Attributes:
        commands: ns at which the arbiter's commands came.
        cpu: (s since its begin, processor seconds used so far) by process.
        published: messages by topic, as their publishers counted.
    """

    seconds: float = 0.0
    commands: list[int] = field(default_factory=list)
    cpu: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    published: dict[str, int] = field(default_factory=dict)

    def note_cpu(self, now: float, pids: Mapping[str, int]) -> None:
        """Note what the processes have used by now."""
        for name, pid in pids.items():
            self.cpu.setdefault(name, []).append((now, cpu_seconds(pid)))

    def shares(self, name: str) -> np.ndarray:
        """Return (s, share of a core since the last sample) rows of a process."""
        rows = np.array(self.cpu.get(name, []), float).reshape(-1, 2)
        return np.column_stack([rows[1:, 0], np.diff(rows[:, 1]) / np.diff(rows[:, 0])])

    def share(self, name: str) -> float:
        """Return its share of a core over the whole phase."""
        rows = self.cpu[name]
        return (rows[-1][1] - rows[0][1]) / (rows[-1][0] - rows[0][0])

    def hz(self) -> float:
        """Return the rate of the arbiter's commands."""
        return (len(self.commands) - 1) / ((self.commands[-1] - self.commands[0]) * 1e-9)

    def gaps_ms(self) -> dict[str, float]:
        """Return percentiles of the time between two commands."""
        gaps = np.diff(np.array(self.commands, float)) * 1e-6
        return dict(zip(("p50", "p95", "p99"), np.percentile(gaps, (50, 95, 99)).round(2).tolist(), strict=True))


def holes(folder: Path) -> dict[str, int]:
    """Return how many numbers are missing between the first and the last message of each topic with one publisher.

    Images are left out: their publishers' own counts are compared, and reading them takes as long as writing them.
    """
    with Bag(folder) as bag:
        small = [topic.name for topic in bag.topics.values() if topic.type not in BULKY]
    numbers: dict[str, list[int]] = {}
    for path in sorted(folder.glob("*.mcap")):
        with path.open("rb") as handle:
            for _, channel, message in make_reader(handle).iter_messages(topics=small):
                numbers.setdefault(channel.topic, []).append(message.sequence)
    # Several publishers count each for themselves: their numbers do not rise.
    return {
        topic: int(found[-1] - found[0] + 1 - len(found))
        for topic, found in numbers.items()
        if np.all(np.diff(found) > 0)
    }


def judge(without: Phase, recorded: Phase, folder: Path, status: Mapping[str, Any]) -> dict[str, Any]:
    """Return the report; ``passed`` asks for cheap, harmless and complete."""
    with Bag(folder) as bag:
        kept = {name: topic.count for name, topic in bag.topics.items()}
        size, duration = bag.size, bag.duration
    missing = {topic: count - kept.get(topic, 0) for topic, count in recorded.published.items()}
    found = holes(folder)
    share = recorded.share("recorder_node")
    change = recorded.hz() / without.hz() - 1.0
    checks = {
        f"recorder below {CPU_SHARE:.0%} of a core": share < CPU_SHARE,
        f"arbiter's rate changed by less than {RATE_CHANGE:.0%}": abs(change) < RATE_CHANGE,
        "every message published is in the bag": not any(missing.values()),
        "no hole in any topic": not any(found.values()),
        "nothing dropped": not status.get("dropped") and not status.get("lost") and not status.get("error"),
    }
    return {
        "passed": all(checks.values()),
        "checks": checks,
        "seconds": round(recorded.seconds, 1),
        "recorder_cpu": round(share, 4),
        "recorder_cpu_p95_of_seconds": round(float(np.percentile(recorded.shares("recorder_node")[:, 1], 95)), 4),
        "cpu_of_others": {n: round(recorded.share(n), 4) for n in recorded.cpu if n != "recorder_node"},
        "arbiter_hz_without": round(without.hz(), 3),
        "arbiter_hz_with": round(recorded.hz(), 3),
        "arbiter_change": round(change, 5),
        "command_gap_ms_without": without.gaps_ms(),
        "command_gap_ms_with": recorded.gaps_ms(),
        "published": recorded.published,
        "in_the_bag": kept,
        "missing": missing,
        "holes": found,
        "dropped": status.get("dropped"),
        "lost": status.get("lost"),
        "error": status.get("error"),
        "megabytes": round(size / 1e6, 1),
        "megabytes_per_second": round(size / 1e6 / max(duration, 1e-9), 1),
        "load_average": os.getloadavg(),
        "cores": os.cpu_count(),
    }


def table(report: Mapping[str, Any]) -> str:
    """Return what people read of a report."""
    lines = [
        f"{report['seconds']:g} s, {report['megabytes_per_second']:g} MB/s, {report['cores']} cores, "
        f"load {report['load_average'][0]:.1f}",
        f"recorder   {100 * report['recorder_cpu']:6.1f} % of a core (p95 of seconds "
        f"{100 * report['recorder_cpu_p95_of_seconds']:.1f} %)",
        f"arbiter    {report['arbiter_hz_without']:6.2f} Hz without, {report['arbiter_hz_with']:.2f} Hz with "
        f"({100 * report['arbiter_change']:+.2f} %)",
    ]
    for topic, count in sorted(report["in_the_bag"].items()):
        told = report["published"].get(topic)
        said = f"{told} published, {report['missing'][topic]} missing" if told is not None else ""
        if topic in report["holes"]:
            said += f"{', ' if said else ''}{report['holes'][topic]} holes"
        lines.append(f"{count:9}  {topic}  {said}")
    lines += [f"{'ok    ' if good else 'FAILED'} {check}" for check, good in report["checks"].items()]
    return "\n".join(lines)


def draw(path: Path, recorded: Phase, report: Mapping[str, Any], names: Iterable[str]) -> Path:
    """Draw the processes' share of a core over time."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(9, 4), constrained_layout=True)
    for name in names:
        rows = recorded.shares(name)
        axis.plot(rows[:, 0], 100 * rows[:, 1], label=f"{name}  {100 * recorded.share(name):.1f} %")
    axis.axhline(100 * CPU_SHARE, color="grey", linestyle=":", label=f"limit of the recorder, {CPU_SHARE:.0%}")
    axis.set(xlabel="s", ylabel="% of a core", ylim=(0, None))
    axis.set_title(
        f"{'passed' if report['passed'] else 'FAILED'}: {report['megabytes_per_second']:g} MB/s recorded, arbiter "
        f"{report['arbiter_hz_without']:.2f} → {report['arbiter_hz_with']:.2f} Hz",
        fontsize=10,
    )
    axis.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return path
