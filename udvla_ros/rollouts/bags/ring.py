"""The last seconds of everything, for ``~/snapshot``; and the last word of every latched topic."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from udvla_ros.rollouts.bags.backlog import OVERHEAD
from udvla_ros.rollouts.bags.source import Sample

SEVERAL = 32  # last words kept of a latched topic with several publishers (/tf_static): nobody says whose is whose


class Latched:
    """What a late subscriber would be given, also after the publisher has gone."""

    def __init__(self) -> None:
        self._words: dict[str, list[Sample]] = {}

    def add(self, sample: Sample, publishers: int = 1) -> None:
        """Note a message of a latched topic that now has so many publishers."""
        words = self._words.get(sample.source.name, [])
        if publishers <= 1 and len(words) <= 1:
            self._words[sample.source.name] = [sample]
            return
        words = [word for word in words if word.data != sample.data]
        self._words[sample.source.name] = [*words, sample][-SEVERAL:]

    def copy(self) -> Latched:
        """Return another that knows the same."""
        other = Latched()
        other._words = {name: list(words) for name, words in self._words.items()}
        return other

    def at(self, received: int) -> list[Sample]:
        """Return the last words as if they had come at ``received`` ns; when they were published stays."""
        return [word._replace(received=received) for words in self._words.values() for word in words]


class Ring:
    """Messages of the last ``seconds``, as far back as ``limit`` bytes go; images are the first to be forgotten.

    ``publishers`` tells how many publishers a topic has.
    """

    def __init__(self, seconds: float, limit: int, publishers: Callable[[str], int] = lambda name: 1) -> None:
        self._span, self._limit, self._publishers = int(seconds * 1e9), limit, publishers
        self._queues: dict[bool, deque[Sample]] = {False: deque(), True: deque()}
        self._before = Latched()
        self.size = 0

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def extend(self, samples: Iterable[Sample]) -> None:
        """Add messages, in order, and forget the oldest."""
        if not self._span:
            return
        newest = 0
        for sample in samples:
            self._queues[sample.source.bulky].append(sample)
            self.size += len(sample.data) + OVERHEAD
            newest = sample.received
        for queue in self._queues.values():
            while queue and queue[0].received < newest - self._span:
                self._forget(queue)
        for bulky in (True, False):
            while self.size > self._limit and self._queues[bulky]:
                self._forget(self._queues[bulky])

    def _forget(self, queue: deque[Sample]) -> None:
        sample = queue.popleft()
        self.size -= len(sample.data) + OVERHEAD
        if sample.source.latched:
            self._before.add(sample, self._publishers(sample.source.name))

    def contents(self, since: int = 0) -> list[Sample]:
        """Return what came since then (ns), in order, preceded by the latched words that held before."""
        held = sorted([s for queue in self._queues.values() for s in queue], key=lambda s: s.received)
        before = self._before.copy()
        for sample in held:
            if sample.received < since and sample.source.latched:
                before.add(sample, self._publishers(sample.source.name))
        held = [sample for sample in held if sample.received >= since]
        return [*before.at(held[0].received), *held] if held else []
