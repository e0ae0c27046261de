"""``/diagnostics`` by REP-107, once a second, with the numbers a person looks for: rates, ages, percentiles."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
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
        self._timer = node.create_timer(period, self.publish)

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


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
