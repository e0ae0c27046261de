"""The policy of another computer, in place of one's own: the same calls, and a server that fails ends in a refusal.

No torch in here. A server that does not answer in time is lost, and stays lost until :meth:`RemotePolicy.reset`:
a chunk that comes late was made for a scene that has moved on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import numpy as np
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from udvla_ros.decoding.interface import DecodeOptions
from udvla_ros.errors import ConfigError
from udvla_ros.serving.wire import REQUEST, ServerLost, ServerRefused, pack, unpack

PATIENCE = 120.0  # s that a warm-up may take


@dataclass(frozen=True)
class RemoteChunk:
    """A chunk as the server computed it; see :class:`udvla_ros.policy.policy.ActionChunk`.

    ``timings_ms`` ``total`` is the whole round trip, ``network`` what of it the server did not account for.
    """

    actions: np.ndarray
    dt: float
    stamp: float
    timings_ms: dict[str, float]
    statistics: dict[str, Any] = field(default_factory=dict)
    codes: Any = None
    likely: Any = None
    _paint: Callable[[], dict[str, np.ndarray]] = field(default=dict, repr=False)

    @cached_property
    def predicted(self) -> dict[str, np.ndarray]:
        """The future as the server paints it, asked for when it is looked at."""
        started = time.perf_counter()
        images = self._paint()
        if images:
            self.timings_ms["image_decode"] = 1e3 * (time.perf_counter() - started)
        return images


class RemotePolicy:
    """A policy behind ``udvla serve``. Not thread-safe but for :meth:`reset`.

    Args:
        address: ``ws://host:port``.
        timeout: seconds for one answer.

    Raises:
        ServerLost: nobody is there, or it is no ``udvla serve``.
    """

    def __init__(self, address: str, timeout: float) -> None:
        if not address.startswith(("ws://", "wss://")):
            raise ConfigError(f"server '{address}' is no address; give ws://host:port")
        self.address, self._timeout = address, timeout
        self._socket: ClientConnection | None = None
        self._leaving = contextlib.ExitStack()
        self._number = 0
        self._lost = ""
        self._checked: set[DecodeOptions] = set()
        contract = self._connect()
        self.hash = str(contract["hash"])
        self.config = SimpleNamespace(**contract["config"])
        self._options = DecodeOptions(**contract["options"])

    # -- what a policy offers --------------------------------------------------------------------------
    def options(self, **changes: Any) -> DecodeOptions:
        """Return the bundle's own decoding options, with changes."""
        return dataclasses.replace(self._options, **changes)

    def check(self, options: DecodeOptions) -> DecodeOptions:
        """Return the options if the server's bundle can be decoded with them; it is asked once for each."""
        if options not in self._checked and not self._lost:
            self._ask({"ask": "check", "options": dataclasses.asdict(options)})
            self._checked.add(options)
        return options

    def unknown_words(self, instruction: str) -> list[str]:
        """Return the words that the bundle never saw; none where the server cannot be asked now."""
        with contextlib.suppress(ServerLost):
            return list(self._ask({"ask": "words", "instruction": instruction})["words"])
        return []

    def warm_up(self, options: DecodeOptions | None = None, runs: int = 2) -> float:
        """Let the server run until nothing is cold; return the last run's total there in ms."""
        asked = dataclasses.asdict(options or self._options)
        return float(self._ask({"ask": "warm_up", "options": asked, "runs": runs}, timeout=PATIENCE)["total"])

    def infer(
        self, observation: Any, options: DecodeOptions | None = None, seed: int = 0, previous: Any = None
    ) -> RemoteChunk:
        """Return the server's chunk for one observation.

        Raises:
            ServerLost: no answer in time; nothing is asked again before :meth:`reset`.
            ServerRefused: what the policy there says against it.
        """
        started = time.perf_counter()
        images = {name: np.ascontiguousarray(observation.images[name]) for name in self.config.cameras}
        request = {"ask": "chunk", "options": dataclasses.asdict(options or self._options), "seed": int(seed)}
        told = {"images": images, "task_description": observation.instruction}
        answer = self._ask(request, told)
        actions = np.asarray(answer["actions"], np.float32)
        if actions.shape != (self.config.chunk, self.config.dimensions):
            raise self._lose(f"it sent a chunk of shape {list(actions.shape)}")
        total = 1e3 * (time.perf_counter() - started)
        timings = {name: float(value) for name, value in answer["timings_ms"].items()}
        timings |= {"server": timings["total"], "network": total - timings["total"], "total": total}
        number = int(answer["chunk"])
        return RemoteChunk(
            actions, 1.0 / self.config.control_hz, observation.stamp, timings, dict(answer["statistics"]),
            _paint=lambda: self._painted(number),
        )  # fmt: skip

    def reset(self) -> None:
        """Forget a loss: the arm is being engaged anew, so that the server is asked again."""
        self._lost = ""

    def close(self) -> None:
        """Leave the server."""
        socket, self._socket = self._socket, None
        if socket is not None:
            with contextlib.suppress(OSError, WebSocketException):
                socket.close_socket()  # first, so that nobody waits for the other side's goodbye
                self._leaving.close()

    # -- the wire --------------------------------------------------------------------------------------
    def _painted(self, number: int) -> dict[str, np.ndarray]:
        with contextlib.suppress(ServerLost, ServerRefused):  # a picture that does not come stops nobody
            answer = self._ask({"ask": "paint", "chunk": number})
            return {n: np.frombuffer(p["data"], np.uint8).reshape(p["shape"]) for n, p in answer["predicted"].items()}
        return {}

    def _connect(self) -> dict[str, Any]:
        try:
            joined = connect(
                self.address, open_timeout=self._timeout, close_timeout=0.1, max_size=None, compression=None,
                ping_interval=None, proxy=None,
            )  # fmt: skip
            self._socket = self._leaving.enter_context(joined)
            self._socket.send(pack("episode_start", {REQUEST: True}))
        except (OSError, WebSocketException, TimeoutError) as error:
            raise self._lose(f"cannot be reached ({error or type(error).__name__})") from None
        try:
            return self._exchange({REQUEST: {"ask": "contract"}}, self._timeout)["contract"]
        except (ServerRefused, KeyError):
            raise self._lose("is no `udvla serve`") from None

    def _ask(
        self, request: Mapping[str, Any], told: Mapping[str, Any] | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        if self._lost:
            raise ServerLost(f"{self._lost}; engage again once it is back")
        if self._socket is None and self._connect()["hash"] != self.hash:
            raise self._lose("serves another bundle than when this node was configured; configure it again")
        return self._exchange({**(told or {}), REQUEST: dict(request)}, timeout or self._timeout)

    def _exchange(self, payload: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        assert self._socket is not None
        self._number += 1
        try:
            self._socket.send(pack("observation", payload, self._number))
            kind, answer, number = unpack(self._socket.recv(timeout=timeout, decode=False))
        except TimeoutError:
            raise self._lose(f"gave no answer within {timeout:g} s") from None
        except (OSError, WebSocketException, EOFError) as error:
            raise self._lose(f"is gone ({type(error).__name__})") from None
        except ServerLost as error:
            raise self._lose(str(error)) from None
        if kind == "error":
            text = str(answer.get("error", "")).removeprefix("observation_failed: ")
            raise ServerRefused(f"{self.address}: {' '.join(text.split())}")
        if kind != "action" or number != self._number:
            raise self._lose(f"answered with a message of kind '{kind}' to another question")
        return answer

    def _lose(self, why: str) -> ServerLost:
        self.close()  # so that an answer that comes later meets nobody
        self._lost = f"policy server {self.address} {why}"
        return ServerLost(self._lost)
