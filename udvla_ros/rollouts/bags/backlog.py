"""Messages between the graph and the disk: a queue bounded in bytes that says what it could not take."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable

from udvla_ros.rollouts.bags.source import Sample

OVERHEAD = 200  # bytes of memory that a message takes besides its own
BULKY_SHARE = 0.75  # of the queue that bulky messages may fill: images go before joint states do
BATCH = 8 << 20  # bytes handed over at once


class Backlog:
    """A queue from one thread to another; neither waits for the other longer than it takes to move a pointer.

    Args:
        limit: bytes it may hold.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._queue: deque[Sample] = deque()
        self._changed = threading.Condition()
        self.size = 0
        self.closed = False

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, samples: Iterable[Sample]) -> list[Sample]:
        """Take messages in; returns those there was no room for."""
        refused = []
        with self._changed:
            for sample in samples:
                size = len(sample.data) + OVERHEAD
                room = self._limit * (BULKY_SHARE if sample.source.bulky else 1.0)
                if self.closed or self.size + size > room:
                    refused.append(sample)
                    continue
                self._queue.append(sample)
                self.size += size
            self._changed.notify()
        return refused

    def take(self, timeout: float) -> list[Sample]:
        """Return the oldest messages, of some megabytes at most; empty after ``timeout`` s without any."""
        with self._changed:
            if not self._queue and not self.closed:
                self._changed.wait(timeout)
            taken, size = [], 0
            while self._queue and size < BATCH:
                sample = self._queue.popleft()
                size += len(sample.data) + OVERHEAD
                taken.append(sample)
            self.size -= size
            return taken

    def close(self) -> None:
        """Take no more; what is in it can still be taken out."""
        with self._changed:
            self.closed = True
            self._changed.notify()

    def clear(self) -> None:
        """Forget what is in it."""
        with self._changed:
            self._queue.clear()
            self.size = 0
