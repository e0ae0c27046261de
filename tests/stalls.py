"""What the machine did while a real-time test ran: told where one fails, since a test cannot tell it from a fault."""

from __future__ import annotations

import threading
import time
from pathlib import Path

PERIOD = 0.005  # s between two looks at the clock


class StallWatch:
    """A thread that sleeps shortly, again and again, and notes how late it was woken."""

    def __init__(self) -> None:
        self.worst = 0.0
        self._stolen = _stolen()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stall watch", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        before, ended = time.monotonic(), False
        while not ended:
            ended = self._ended.wait(PERIOD)
            now = time.monotonic()
            self.worst = max(self.worst, now - before - PERIOD)
            before = now

    def end(self) -> str:
        """Stop watching; return what was seen, in words."""
        self._ended.set()
        self._thread.join()
        stolen = _stolen() - self._stolen
        return f"longest stall of this process {1e3 * self.worst:.0f} ms, stolen by the host {stolen:.2f} s"


def _stolen() -> float:
    """Return the seconds that the host of a virtual machine took from it so far; 0 where nobody counts."""
    try:
        return int(Path("/proc/stat").read_text().split("\n", 1)[0].split()[8]) / 100.0
    except (OSError, IndexError, ValueError):
        return 0.0
