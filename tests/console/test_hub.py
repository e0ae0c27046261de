from __future__ import annotations

import asyncio

from udvla_ros.console.hub import HISTORY, VIEWERS, Hub, Viewer
from udvla_ros.console.news import News


def test_a_viewer_that_does_not_read_holds_only_the_newest():
    async def scene():
        viewer = Viewer([])
        for number in range(5000):
            viewer.put(News("mode", number))
            viewer.put(News("scores", number))
        found = await viewer.next()
        assert [news.value for news in found if news.key == "mode"] == [4999]
        assert [news.value for news in found if news.key == "scores"] == list(range(5000 - HISTORY, 5000))
        viewer.put(News("mode", "HOLD"))
        assert [news.value for news in await viewer.next()] == ["HOLD"]

    asyncio.run(scene())


def test_who_comes_later_is_told_what_is_known_even_from_before_the_server_ran():
    async def scene():
        hub = Hub()
        hub.tell(News("robot", "ur5e"))
        hub.attach()
        hub.tell(News("scores", 1))
        await asyncio.sleep(0)
        first = hub.enter()
        assert hub.watched and [news.value for news in await first.next()] == ["ur5e", 1]
        others = [hub.enter() for _ in range(VIEWERS)]
        assert others[-1] is None and all(others[:-1])
        for viewer in (first, *others[:-1]):
            hub.leave(viewer)
        assert not hub.watched

    asyncio.run(scene())


def test_a_loop_that_hangs_costs_who_tells_nothing():
    hub = Hub()

    async def scene():
        hub.attach()
        for number in range(100_000):  # the loop does not run meanwhile
            hub.tell(News("scores", number))
        assert len(hub._waiting) == HISTORY

    asyncio.run(scene())
    hub.tell(News("mode", "HOLD"))  # the server's loop is gone
