"""One side tells, some look on: each viewer gets the newest of each key as fast as it reads, and no faster.

Nothing grows: what a slow viewer has not fetched is replaced by what is newer, and of a series a bounded tail waits.
All methods but :meth:`Hub.tell` belong to the event loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Iterable

from udvla_ros.console.news import SERIES, News

HISTORY = 600  # of each series kept for those who come later
VIEWERS = 8


class Viewer:
    """What waits for one viewer."""

    def __init__(self, first: Iterable[News]) -> None:
        self._newest: dict[str, News] = {}
        self._series: deque[News] = deque(maxlen=HISTORY)
        self._something = asyncio.Event()
        for news in first:
            self.put(news)

    def put(self, news: News) -> None:
        """Take something; what it makes old is forgotten."""
        if news.key in SERIES:
            self._series.append(news)
        else:
            self._newest[news.key] = news
        self._something.set()

    async def next(self) -> list[News]:
        """Return what waits, once there is something."""
        await self._something.wait()
        self._something.clear()
        found = [*self._newest.values(), *self._series]
        self._newest.clear()
        self._series.clear()
        return found


class Hub:
    """See the module."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._viewers: set[Viewer] = set()
        self._newest: dict[str, News] = {}
        self._series: deque[News] = deque(maxlen=HISTORY)
        self._waiting: deque[News] = deque(maxlen=HISTORY)
        self._lock = threading.Lock()
        self.watched = False  # whether pictures are worth making

    def attach(self) -> None:
        """Belong to the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._spread()  # what was told before

    def tell(self, news: News) -> None:
        """Tell everybody; from any thread. A loop that hangs costs the caller nothing but this."""
        with self._lock:
            wake = not self._waiting
            self._waiting.append(news)
        if wake and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._spread)

    def _spread(self) -> None:
        with self._lock:
            news, self._waiting = list(self._waiting), deque(maxlen=HISTORY)
        for one in news:
            if one.key in SERIES:
                self._series.append(one)
            else:
                self._newest[one.key] = one
            for viewer in self._viewers:
                viewer.put(one)

    def enter(self) -> Viewer | None:
        """Return a new viewer with what is known, or None where there are enough."""
        if len(self._viewers) >= VIEWERS:
            return None
        viewer = Viewer([*self._newest.values(), *self._series])
        self._viewers.add(viewer)
        self.watched = True
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """Forget a viewer."""
        self._viewers.discard(viewer)
        self.watched = bool(self._viewers)
