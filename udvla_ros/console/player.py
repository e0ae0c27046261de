"""A recorded episode, shown as it was seen: what the page is told live, from a bag, with a slider of time."""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import json
import time
from pathlib import Path
from typing import Any

from udvla_ros.console.hub import Viewer
from udvla_ros.console.news import LIVE, PREDICTED, SERIES, News, about, picture, predicted_topics, tell, topics_of
from udvla_ros.errors import ConfigError, UdvlaError
from udvla_ros.rollouts.bags.episode import robot_of
from udvla_ros.rollouts.bags.listing import list_episodes
from udvla_ros.rollouts.bags.reader import Bag, seconds
from udvla_ros.rollouts.bags.topic import BagError

FRAME = 0.08  # s between two looks at what is due
PLAYERS = 4
LISTED = 200  # newest episodes that are listed


class Recording:
    """A bag's news in the order in which it was received, pictures as small JPEGs: an hour fits into memory.

    Raises:
        BagError: the bag cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        with Bag(folder) as bag:
            self.robot = robot_of(bag)
            self.labels, self.start, self.seconds = bag.labels, bag.start * 1e-9, bag.duration
            live = {camera["topic"]: (LIVE, name) for name, camera in self.robot.cameras.items()}
            foreseen = predicted_topics(list(self.robot.cameras))
            pictures = live | {topic: (PREDICTED, name) for name, topic in foreseen.items()}
            self.events: list[tuple[float, News]] = []
            for topic, received, message in bag.read(*topics_of(self.robot), *pictures):
                at = received - self.start
                if topic not in pictures:
                    self.events += [(at, news) for news in tell(topic, message, self.robot)]
                    continue
                with contextlib.suppress(UdvlaError):  # a picture that cannot be read is not shown, as live
                    stamp = seconds(message.header.stamp)
                    self.events.append((at, picture(*pictures[topic], stamp, message, topic)))
        self.times = [at for at, _ in self.events]

    def between(self, last: float, now: float) -> list[News]:
        """Return what came in ``(last, now]``, of each key the newest; a step back begins with all that went before."""
        first = bisect.bisect_right(self.times, last) if now >= last else 0
        found = [news for _, news in self.events[first : bisect.bisect_right(self.times, now)]]
        series = [news for news in found if news.key in SERIES]
        return [*{news.key: news for news in found if news.key not in SERIES}.values(), *series]

    def first(self) -> list[News]:
        """Return what a page has to know of it."""
        told = {"name": self.name, "seconds": round(self.seconds, 2), "start": self.start, "labels": self.labels}
        return [about(self.robot), News("recording", told)]


class Player(Viewer):
    """Plays one recording to one viewer: ``{"play": true}``, ``{"seek": s}``, ``{"speed": factor}``."""

    def __init__(self, recording: Recording) -> None:
        super().__init__(recording.first())
        self._recording = recording
        self._at, self._shown, self._speed, self._plays = 0.0, -1.0, 1.0, True
        self._task = asyncio.create_task(self._run())

    def steer(self, text: str) -> None:
        """Do what the page's slider and buttons say; what cannot be read is nothing."""
        try:
            asked = json.loads(text)
            self._plays = bool(asked.get("play", self._plays))
            self._speed = min(max(float(asked.get("speed", self._speed)), 0.1), 4.0)
            if "seek" in asked:
                self._at = min(max(float(asked["seek"]), 0.0), self._recording.seconds)
        except (ValueError, TypeError, AttributeError):
            return

    async def _run(self) -> None:
        last = time.monotonic()
        while True:
            now = time.monotonic()
            if self._plays:
                self._at = min(self._at + self._speed * (now - last), self._recording.seconds)
            last = now
            if self._at != self._shown:
                if self._at < self._shown:
                    self.put(News("rewound", True))
                for news in self._recording.between(self._shown, self._at):
                    self.put(news)
                self._shown = self._at
                self.put(News("time", {"at": round(self._at, 3), "plays": self._plays}))
            await asyncio.sleep(FRAME)

    def close(self) -> None:
        """End."""
        self._task.cancel()


class Players:
    """The recordings of one folder."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._known: tuple[float, list[dict[str, Any]]] = (0.0, [])
        self._open: list[Player] = []
        self._listing = asyncio.Lock()

    async def listed(self) -> list[dict[str, Any]]:
        """Return the episodes, the newest first; looked up at most every few seconds."""
        if self._folder is None or not self._folder.is_dir():
            return []
        async with self._listing:
            if time.monotonic() - self._known[0] > 3.0:
                lines = await asyncio.to_thread(list_episodes, self._folder)
                kept = ("began", "seconds", "instruction", "outcome", "state", "reason")
                rows = [
                    {"name": str(Path(line.folder).relative_to(self._folder)), **{k: getattr(line, k) for k in kept}}
                    for line in reversed(lines[-LISTED:])
                ]
                self._known = (time.monotonic(), rows)
        return self._known[1]

    async def open(self, name: str) -> Player:
        """Return a player of an episode by its name below the folder.

        Raises:
            UdvlaError: there is none, it cannot be read, or enough are open.
        """
        self._open = [player for player in self._open if not player._task.done()]
        if len(self._open) >= PLAYERS:
            raise ConfigError("enough recordings are shown already; close one")
        if self._folder is None:
            raise BagError("no folder of episodes was given")
        folder = (self._folder / name).resolve()
        if not folder.is_relative_to(self._folder.resolve()):
            raise BagError(f"'{name}' is none of the episodes")
        player = Player(await asyncio.to_thread(Recording, folder))
        self._open.append(player)
        return player
