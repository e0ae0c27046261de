"""``/diagnostics`` by REP-107, once a second, with the numbers a person looks for: rates, ages, percentiles."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

OK = DiagnosticStatus.OK
WARN = DiagnosticStatus.WARN
ERROR = DiagnosticStatus.ERROR
STALE = DiagnosticStatus.STALE

Report = tuple[bytes, str, Mapping[str, object]]


class Diagnostics:
    """Publishes what ``collect`` returns: level, one line, values; and at once on :meth:`publish`."""

    def __init__(self, node: Node, hardware_id: str, collect: Callable[[], Report], period: float = 1.0) -> None:
        self._node, self._hardware_id, self._collect = node, hardware_id, collect
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # On a steady clock: a clock that is set back must not silence the news of it.
        self._timer = node.create_timer(period, self.publish, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def publish(self) -> None:
        """Publish now, for news that must not wait a second (a refusal, a stop)."""
        level, message, values = self._collect()
        status = DiagnosticStatus(
            level=level,
            name=self._node.get_fully_qualified_name().lstrip("/"),
            message=message,
            hardware_id=self._hardware_id,
            values=[KeyValue(key=key, value=_text(value)) for key, value in values.items()],
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(array)


class Samples:
    """The last samples of something in milliseconds, told as p50, p95 and p99."""

    def __init__(self, count: int = 512) -> None:
        self._values: deque[float] = deque(maxlen=count)

    def add(self, value: float) -> None:
        self._values.append(value)

    def percentiles(self) -> dict[str, float]:
        """Return p50, p95, p99; empty without samples."""
        values = list(self._values)
        if not values:
            return {}
        return dict(zip(("p50", "p95", "p99"), np.percentile(values, (50, 95, 99)).tolist(), strict=True))


class StageTimes:
    """Latencies by stage since the knobs were last turned, and what turning them did to the medians."""

    def __init__(self) -> None:
        self._samples: dict[str, Samples] = {}
        self._before: dict[str, float] = {}
        self._turned = ""

    def add(self, timings_ms: Mapping[str, float]) -> None:
        """Take one chunk's times in ms."""
        for stage, value in timings_ms.items():
            self._samples.setdefault(stage, Samples()).add(value)

    def turned(self, what: str) -> None:
        """Begin anew: what came before was measured with other knobs."""
        self._before = {stage: samples.percentiles()["p50"] for stage, samples in self._samples.items()}
        self._samples, self._turned = {}, what

    def values(self) -> dict[str, object]:
        """Return ``<stage>_ms_p50`` and so on; after a turn also what was turned and each median before and after."""
        found = {stage: samples.percentiles() for stage, samples in list(self._samples.items())}
        values: dict[str, object] = {f"{s}_ms_{key}": v for s, told in found.items() for key, v in told.items()}
        if self._turned:
            values["turned"] = self._turned
            values |= {
                f"turned/{stage}_ms_p50": f"{before:.4g} -> {found[stage]['p50']:.4g}"
                for stage, before in list(self._before.items())
                if stage in found
            }
        return values


class Rate:
    """Events per second over the last ``window`` seconds."""

    def __init__(self, window: float = 2.0) -> None:
        self._window = window
        self._times: deque[float] = deque(maxlen=4096)

    def note(self, now: float) -> None:
        self._times.append(now)

    def hz(self, now: float) -> float:
        """Return the rate; 0 when nothing came within the window."""
        while self._times and now - self._times[0] > self._window:
            self._times.popleft()
        return len(self._times) / self._window

    def age(self, now: float) -> float | None:
        """Return the seconds since the last event, or None if there was none within the window."""
        return now - self._times[-1] if self._times else None


class CpuShare:
    """What this process takes of one core, in percent, since it was last asked."""

    def __init__(self) -> None:
        self._last = (time.monotonic(), time.process_time())
        self._percent = 0.0

    def percent(self) -> float:
        """Return the share; asked again within a second or so, the last one."""
        wall, cpu = time.monotonic(), time.process_time()
        if wall - self._last[0] > 0.9:
            self._percent = 100.0 * (cpu - self._last[1]) / (wall - self._last[0])
            self._last = (wall, cpu)
        return self._percent


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
