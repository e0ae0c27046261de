"""The web server: one page, one socket for what is told, one address for what is asked.

On 127.0.0.1 everybody on this machine may look, as with ``ros2 topic echo``; pages of other origins may not. Beyond it
every request needs the token.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import json
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiohttp import WSCloseCode, WSMsgType, web

from udvla_ros.console.actions import NotAllowed, checked
from udvla_ros.console.hub import Hub, Viewer
from udvla_ros.console.player import Players
from udvla_ros.errors import UdvlaError

PAGE = Path(__file__).parent / "page"
LARGEST = 4096  # bytes of a request or of a message from a page
PATIENCE = 5.0  # s that a viewer may take to read what was sent to it
EVERY = 0.05  # s between two bundles of news to one viewer
COOKIE = "udvla_console"
POLICY = "default-src 'self'; img-src 'self' blob:; style-src 'self'; connect-src 'self'; frame-ancestors 'none'"
HEADERS = {
    "Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}  # fmt: skip

Act = Callable[[dict[str, Any]], Awaitable[tuple[bool, str]]]


async def nobody(asked: dict[str, Any]) -> tuple[bool, str]:
    """Answer where no graph is."""
    return False, "there is no running graph behind this page"


class Server:
    """The console's server; make it in the event loop that runs it.

    Args:
        hub: what is told to viewers.
        act: does what was asked for, once it is known to be allowed.
        host, port: where to listen; port 0 is any.
        token: needed with every request where ``host`` is not this machine alone; drawn where none is given.
        episodes: folder of bags to list and to show.
        episode: name of the one that is shown at first, in place of what is live.
    """

    def __init__(
        self, hub: Hub, act: Act = nobody, host: str = "127.0.0.1", port: int = 8080, token: str = "",
        episodes: Path | None = None, episode: str = "",
    ) -> None:  # fmt: skip
        self._hub, self._act, self.host, self.port, self._episode = hub, act, host, port, episode
        self.token = token or ("" if is_loopback(host) else secrets.token_urlsafe(24))
        self._players = Players(episodes)
        self._acting = asyncio.Semaphore(4)
        app = web.Application(middlewares=[self._guard], client_max_size=LARGEST)
        app.router.add_get("/", self._page)
        app.router.add_get("/socket", self._socket)
        app.router.add_get("/episodes", self._episodes)
        app.router.add_post("/act", self._asked)
        app.router.add_static("/page/", PAGE)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, keepalive_timeout=15.0)
        self.sockets: set[web.WebSocketResponse] = set()

    async def start(self) -> None:
        """Listen.

        Raises:
            UdvlaError: the port is taken, or the host is none of this machine.
        """
        self._hub.attach()
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port, backlog=64)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            reason = error.strerror or str(error)
            raise UdvlaError(
                f"cannot listen on {self.host}:{self.port} ({reason}); give another --port, or end who has it"
            ) from None
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """End all connections."""
        for socket in list(self.sockets):
            await socket.close(code=WSCloseCode.GOING_AWAY)
        await self._runner.cleanup()

    @property
    def address(self) -> str:
        """Where people find the page, with the token where one is needed."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/" + (f"?token={self.token}" if self.token else "")

    # -- who may ask -----------------------------------------------------------------------------------------
    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        refusal = self._why_not(request)
        if refusal:
            return web.Response(status=403, text=refusal + "\n", headers=HEADERS)
        response = await handler(request)
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    def _why_not(self, request: web.Request) -> str:
        """Return why a request is refused, or nothing."""
        host = urlsplit(f"//{request.headers.get('Host', '')}").hostname or ""
        if is_loopback(self.host) and not is_loopback(host):
            return f"this page is for this machine alone, not for '{host}'"  # a foreign name bound to 127.0.0.1
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != request.headers.get("Host"):
            return "a page of another origin may not ask"
        if origin is None and request.path == "/socket":
            return "a socket needs an Origin"
        if self.token and not self._has_token(request):
            return "the token is missing or wrong; open the address that the console printed"
        return ""

    def _has_token(self, request: web.Request) -> bool:
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        given = (request.query.get("token", ""), request.cookies.get(COOKIE, ""), bearer)
        return any(hmac.compare_digest(one.encode(), self.token.encode()) for one in given)

    # -- what is asked ---------------------------------------------------------------------------------------
    async def _page(self, request: web.Request) -> web.StreamResponse:
        if "token" in request.query:  # it goes into a cookie and out of the address line
            found = web.HTTPSeeOther("/")
            found.set_cookie(COOKIE, self.token, httponly=True, samesite="Strict", max_age=86400)
            found.headers.update(HEADERS)
            raise found
        return web.FileResponse(PAGE / "index.html")

    async def _episodes(self, request: web.Request) -> web.Response:
        return web.json_response({"episodes": await self._players.listed()})

    async def _asked(self, request: web.Request) -> web.Response:
        if request.content_type != "application/json":
            return web.json_response({"ok": False, "message": "ask with JSON"}, status=415)
        try:
            asked = checked(json.loads(await request.text()))
        except (ValueError, NotAllowed) as error:
            return web.json_response({"ok": False, "message": str(error)}, status=400)
        if self._acting.locked():
            return web.json_response({"ok": False, "message": "too much at once; ask again"}, status=429)
        async with self._acting:
            ok, message = await self._act(asked)
        return web.json_response({"ok": ok, "message": message})

    # -- what is told ----------------------------------------------------------------------------------------
    async def _socket(self, request: web.Request) -> web.StreamResponse:
        name = request.query.get("episode", "") or self._episode
        viewer = None if name else self._hub.enter()
        try:
            player = await self._players.open(name) if name else None
        except UdvlaError as error:
            return web.Response(status=404, text=f"{error}\n")
        if viewer is None and player is None:
            return web.Response(status=503, text="enough pages look on already; close one\n")
        socket = web.WebSocketResponse(max_msg_size=LARGEST, heartbeat=10.0, compress=False)
        await socket.prepare(request)
        self.sockets.add(socket)
        source = viewer or player
        assert source is not None
        sending = asyncio.create_task(_send(socket, source))
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT and player is not None:
                    player.steer(message.data)
        finally:
            self.sockets.discard(socket)
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sending
            if viewer is not None:
                self._hub.leave(viewer)
            if player is not None:
                player.close()
        return socket


async def _send(socket: web.WebSocketResponse, viewer: Viewer | Any) -> None:
    """Send what waits for a viewer; one that does not read is let go."""
    while not socket.closed:
        for news in await viewer.next():
            data = news.encoded()
            try:
                send = socket.send_bytes(data) if isinstance(data, bytes) else socket.send_str(data)
                await asyncio.wait_for(send, PATIENCE)
            except (asyncio.TimeoutError, ConnectionError, RuntimeError):
                transport = socket._req.transport if socket._req is not None else None
                if transport is not None:
                    transport.abort()
                return
        await asyncio.sleep(EVERY)


def is_loopback(host: str) -> bool:
    """Return whether a name or an address is this machine's own, seen from itself alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
