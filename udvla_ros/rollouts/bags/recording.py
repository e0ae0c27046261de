"""The thread that writes one recording, so that a slow disk is no concern of whoever receives messages."""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

from udvla_ros.rollouts.bags.backlog import Backlog
from udvla_ros.rollouts.bags.source import Sample, Source

# A kill loses what was not flushed; with the time a message takes to get here that stays well below a second.
FLUSH = 0.5  # s


class Sink(Protocol):
    """What a recording writes to: :class:`~udvla_ros.rollouts.bags.writer.EpisodeWriter`."""

    folder: Path

    @property
    def size(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def lost(self) -> Counter[str]: ...
    def declare(self, source: Source) -> int: ...
    def write(self, sample: Sample) -> None: ...
    def flush(self) -> None: ...
    def close(self, labels: Mapping[str, str]) -> None: ...
    def discard(self) -> None: ...


class Recording:
    """One recording in progress.

    Args:
        writer: takes the messages; used by this thread alone.
        limit: bytes that may wait to be written.
        closing: returns the labels of the end, from what was dropped by topic.
        convert: what a message is recorded as; default itself.
        min_free: bytes that must stay free on the disk; below, the recording ends with an error.

    Attributes:
        error: one line, once something went wrong.
        dropped: messages by topic that came and were not written.
        done: set when everything is on the disk, or the error is known.
    """

    def __init__(
        self,
        writer: Sink,
        limit: int,
        closing: Callable[[Mapping[str, int]], Mapping[str, str]],
        convert: Callable[[Sample], Sample] = lambda sample: sample,
        min_free: int = 0,
    ) -> None:
        self._writer, self._closing, self._convert, self._min_free = writer, closing, convert, min_free
        self.folder = writer.folder
        self.backlog = Backlog(limit)
        self.error = ""
        self.dropped: Counter[str] = Counter()
        self.count = self.bytes = 0
        self.done = threading.Event()
        self._discard = False
        self._batch: deque[Sample] = deque()
        self._thread = threading.Thread(target=self._run, name=f"writer of {self.folder.name}", daemon=True)

    def start(self, first: Iterable[Sample] = ()) -> None:
        """Begin, with some messages that count for no queue: latched ones, or a snapshot."""
        self._batch.extend(first)
        self._thread.start()

    def put(self, samples: Iterable[Sample]) -> Counter[str]:
        """Queue messages; returns how many of which topic there was no room for, and counts them."""
        refused = Counter(sample.source.name for sample in self.backlog.put(samples))
        self.dropped += refused
        return refused

    def end(self, discard: bool = False) -> None:
        """Take no more; the thread writes what waits, finishes the bag (or deletes it) and ends."""
        self._discard = discard
        self.backlog.close()

    def _run(self) -> None:
        try:
            self._write_all()
        except OSError as error:
            self._fail(f"{error.strerror or error} in {self.folder.parent}: recording stopped; free some space")
        except Exception as error:  # whatever it is, the bag has to be closed and somebody has to be told
            self._fail(f"{type(error).__name__} while writing {self.folder.name}: {error}")
        self.backlog.close()
        unwritten = Counter(sample.source.name for sample in self._batch)
        while rest := self.backlog.take(0.0):
            unwritten.update(sample.source.name for sample in rest)
        self.dropped += unwritten
        self._batch.clear()
        try:
            if self._discard and not self.error:
                self._writer.discard()
            else:
                self._writer.close(self._closing(self.dropped + self._writer.lost))
        except OSError as error:
            self._fail(f"{error.strerror or error}: the end of {self.folder.name} was not written in full")
        self.dropped += self._writer.lost
        self.count, self.bytes = self._writer.count, self._writer.size
        self.done.set()

    def _fail(self, text: str) -> None:
        self.error = self.error or text

    def _write_all(self) -> None:
        self._write_batch()
        due = time.monotonic() + FLUSH
        while not self._discard:
            self._batch.extend(self.backlog.take(max(0.0, due - time.monotonic())))
            if not self._batch and self.backlog.closed:
                return
            self._write_batch()
            if time.monotonic() >= due:
                self._writer.flush()
                self.count, self.bytes = self._writer.count, self._writer.size
                self._check_space()
                due = time.monotonic() + FLUSH

    def _write_batch(self) -> None:
        while self._batch:
            self._writer.write(self._convert(self._batch.popleft()))

    def _check_space(self) -> None:
        free = shutil.disk_usage(self.folder).free
        if free < self._min_free:
            self._fail(
                f"{free >> 20} MB free in {self.folder.parent}, less than min_free_mb ({self._min_free >> 20}): "
                "recording stopped; free some space"
            )
            self.backlog.close()
