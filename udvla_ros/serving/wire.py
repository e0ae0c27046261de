"""vla-eval's messages (version 1): msgpack, arrays as bytes with type and shape. Nothing in a message is executed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np

from udvla_ros.errors import UdvlaError

ARRAY = "__ndarray__"
NUMBERS = "biuf"  # kinds of numpy types that are taken
REQUEST = "udvla"  # key of an observation that asks for more than a benchmark's next action


class ServerLost(UdvlaError):
    """The policy server is gone, too slow, or another one than before. Latched until the policy is engaged again."""


class ServerRefused(UdvlaError):
    """The policy server is there and refused, with its reason."""


def pack(kind: str, payload: Mapping[str, Any], number: int = 0) -> bytes:
    """Return a message of that kind (``hello``, ``episode_start``, ``observation``...)."""
    message = {"type": kind, "payload": dict(payload), "seq": number, "timestamp": time.time()}
    return msgpack.packb(message, default=_encode, use_bin_type=True)


def unpack(data: bytes) -> tuple[str, dict[str, Any], int]:
    """Return kind, payload and number of a message. Raises ServerLost for what is no message."""
    try:
        message = msgpack.unpackb(data, object_hook=_decode, raw=False)
        return str(message["type"]), dict(message["payload"]), int(message["seq"])
    except Exception as error:  # whatever a stranger sends
        raise ServerLost(f"what the server sent is no message of vla-eval ({type(error).__name__})") from None


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {ARRAY: True, "data": value.tobytes(), "dtype": value.dtype.str, "shape": list(value.shape)}
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be sent")


def _decode(value: dict[Any, Any]) -> Any:
    if ARRAY not in value:
        return value
    dtype = np.dtype(value["dtype"])
    if dtype.kind not in NUMBERS:
        raise ValueError(f"arrays of {dtype} are not taken")
    return np.frombuffer(value["data"], dtype).reshape(value["shape"]).copy()
