"""The web server, asked over real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from types import SimpleNamespace

import aiohttp
import numpy as np
import pytest

from udvla_ros.console.hub import Hub
from udvla_ros.console.news import LIVE, News, picture
from udvla_ros.console.server import LARGEST, Server
from udvla_ros.errors import UdvlaError


class Scene:
    """A server, a session, and what it was asked to do."""

    def __init__(self, server: Server, session: aiohttp.ClientSession, asked: list) -> None:
        self.server, self.session, self.asked = server, session, asked
        self.url = f"http://127.0.0.1:{server.port}"

    async def status(self, path: str = "/", **headers: str) -> int:
        async with self.session.get(self.url + path, headers=headers) as response:
            return response.status

    async def act(self, what, **headers: str):
        async with self.session.post(self.url + "/act", json=what, headers=headers) as response:
            text = await response.text()
            return response.status, (json.loads(text) if "json" in response.content_type else text)

    def socket(self, **more):
        return self.session.ws_connect(self.url + "/socket", origin=self.url, **more)


def play(act: Callable, token: str = "", **options):
    """Run a scene against a server of its own."""

    async def run():
        asked: list = []

        async def do(what):
            asked.append(what)
            return True, "done"

        hub = Hub()
        server = Server(hub, do, port=0, token=token, **options)
        await server.start()
        try:
            async with aiohttp.ClientSession() as session:
                await asyncio.wait_for(act(Scene(server, session, asked), hub), 20.0)
        finally:
            await server.stop()

    asyncio.run(run())


def test_the_page_and_its_parts_are_served_with_a_policy_that_lets_nothing_else_in():
    async def act(scene, hub):
        for path in ("/", "/page/app.js", "/page/style.css", "/page/vendor/uplot.js", "/page/vendor/uplot.LICENSE"):
            async with scene.session.get(scene.url + path) as response:
                assert response.status == 200, path
                assert "default-src 'self'" in response.headers["Content-Security-Policy"]
        assert await scene.status("/page/../server.py") == 404
        assert await scene.status("/page/..%2fserver.py") in (403, 404)

    play(act)


def test_a_viewer_is_told_everything_and_pictures_as_they_are():
    async def act(scene, hub):
        hub.tell(News("mode", "HOLD"))
        pixels = np.full((48, 64, 3), 90, np.uint8)
        fields = {"encoding": "rgb8", "height": 48, "width": 64, "step": 192, "is_bigendian": 0}
        message = SimpleNamespace(**fields, data=pixels.tobytes())
        async with scene.socket() as socket:
            assert json.loads((await socket.receive()).data) == {"key": "mode", "value": "HOLD"}
            hub.tell(picture(LIVE, "front", 12.5, message, "front"))
            data = (await socket.receive()).data
            assert data[0] == LIVE and data[10:15] == b"front" and data[15:17] == b"\xff\xd8"

    play(act)


def test_what_is_asked_is_checked_before_it_is_done():
    async def act(scene, hub):
        assert await scene.act({"do": "hold"}) == (200, {"ok": True, "message": "done"})
        status, said = await scene.act({"do": "rm -rf"})
        assert status == 400 and not said["ok"]
        plain = {"Content-Type": "text/plain"}
        async with scene.session.post(scene.url + "/act", data='{"do": "hold"}', headers=plain) as response:
            assert response.status == 415, "a form of another page can send text without asking first"
        assert scene.asked == [{"do": "hold"}]

    play(act)


def test_pages_of_other_origins_and_foreign_names_of_this_machine_are_refused():
    async def act(scene, hub):
        assert (await scene.act({"do": "stop"}, Origin="http://evil.example"))[0] == 403
        assert await scene.status("/", Host="evil.example") == 403
        assert await scene.status("/", Host=f"localhost:{scene.server.port}") == 200
        for headers in ({"Origin": "http://evil.example"}, {}):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await scene.session.ws_connect(scene.url + "/socket", headers=headers)
            assert refused.value.status == 403
        assert scene.asked == []

    play(act)


def test_with_a_token_every_request_needs_it():
    async def act(scene, hub):
        for path in ("/", "/page/app.js", "/episodes", "/?token=wrong"):
            assert await scene.status(path) == 403
        assert (await scene.act({"do": "hold"}))[0] == 403
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await scene.socket()
        assert await scene.status("/", Authorization="Bearer s3cret") == 200
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
            async with browser.get(scene.url + "/?token=s3cret") as page:
                assert page.status == 200 and str(page.url) == scene.url + "/", "the token leaves the address line"
            async with browser.get(scene.url + "/page/app.js") as part:
                assert part.status == 200
        assert scene.asked == []

    play(act, token="s3cret")


def test_beyond_this_machine_there_is_always_a_token():
    assert Server(Hub(), host="127.0.0.1").token == "" == Server(Hub(), host="::1").token
    first, second = (Server(Hub(), host="0.0.0.0").token for _ in range(2))
    assert len(first) > 20 and first != second


def test_large_messages_and_too_many_viewers_are_turned_away():
    async def act(scene, hub):
        kind = {"Content-Type": "application/json"}
        async with scene.session.post(scene.url + "/act", data=b"x" * 10_000_000, headers=kind) as response:
            assert response.status == 413
        async with scene.socket() as socket:
            await socket.send_str("x" * (LARGEST + 1))
            assert (await socket.receive()).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
        sockets = [await scene.socket() for _ in range(8)]
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await scene.socket()
        assert refused.value.status == 503
        for socket in sockets:
            await socket.close()

    play(act)


def test_a_viewer_that_does_not_read_is_let_go(monkeypatch):
    monkeypatch.setattr("udvla_ros.console.server.PATIENCE", 0.3)

    async def act(scene, hub):
        reader, writer = await asyncio.open_connection("127.0.0.1", scene.server.port, limit=1024)
        writer.write(
            f"GET /socket HTTP/1.1\r\nHost: 127.0.0.1:{scene.server.port}\r\nOrigin: {scene.url}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        await reader.readuntil(b"\r\n\r\n")
        while scene.server.sockets:  # more than the kernel's buffers hold, and nobody reads
            hub.tell(News("picture/front", None, b"x" * 200_000))
            await asyncio.sleep(0.02)
        writer.close()

    play(act)


def test_a_port_that_is_taken_is_said_in_one_line():
    async def scene():
        first = Server(Hub(), port=0)
        await first.start()
        with pytest.raises(UdvlaError, match="give another --port"):
            await Server(Hub(), port=first.port).start()
        await first.stop()

    asyncio.run(scene())
