"""A crowd at the operator's page: ``python -m udvla_ros.proving.faults.flood PORT`` until it is ended.

A thousand connections at once. One in four says nothing, one looks on and never reads, one sends messages of 10 MB over
the socket, one asks with bodies of 10 MB; who is turned away comes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

VISITORS = 1000
BYTES = 10_000_000
PIECE = bytes(65_536)
STAYS = 2.0  # s until a visitor comes again


def upgrade(port: int) -> bytes:
    """Return what a browser asks for a socket with."""
    return (
        f"GET /socket HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
    ).encode()


FRAME = bytes((0x82, 0x80 | 127)) + BYTES.to_bytes(8, "big") + bytes(4)  # binary, masked by zeros


def asking(port: int) -> bytes:
    """Return the head of a request with a body of 10 MB."""
    return (
        f"POST /act HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {BYTES}\r\n\r\n"
    ).encode()


async def visit(port: int, number: int) -> None:
    """Come, do what the number says, stay, and come again."""
    begins = (b"", upgrade(port), upgrade(port) + FRAME, asking(port))[number % 4]
    while True:
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            _, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port, limit=1), 5.0)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                writer.write(begins)
                for _ in range(BYTES // len(PIECE) if number % 4 > 1 else 0):
                    writer.write(PIECE)
                    await asyncio.wait_for(writer.drain(), STAYS)
            await asyncio.sleep(STAYS)
            writer.transport.abort()
        await asyncio.sleep(0.2)


async def flood(port: int) -> None:
    """Let everybody come, fifty at a time."""
    visits = []
    for number in range(VISITORS):
        visits.append(asyncio.create_task(visit(port, number)))
        if number % 50 == 49:
            await asyncio.sleep(0.05)
    await asyncio.gather(*visits)


@contextmanager
def flooded(port: int) -> Iterator[None]:
    """Flood a page for the length of a block, from a process that waits for all others."""
    crowd = subprocess.Popen(["nice", "-n", "19", sys.executable, "-m", __name__, str(port)])
    try:
        yield
    finally:
        crowd.kill()
        crowd.wait()


if __name__ == "__main__":
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 4096) if most > 0 else 4096, most))
    asyncio.run(flood(int(sys.argv[1])))
