"""What the fuzzers share: how many examples (the same ones unless asked for more), and bytes that went wrong."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

SCALE = float(os.environ.get("UDVLA_FUZZ", "1"))  # `UDVLA_FUZZ=20 make test`: twenty times as many, others each time


def examples(count: int) -> Callable[[Any], Any]:
    """Return a decorator that gives a test so many examples; the count is printed at the end of the run."""
    chosen = settings(
        max_examples=max(1, round(count * SCALE)), deadline=None, database=None, derandomize=SCALE == 1.0,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip

    def decorate(test: Any) -> Any:
        test = chosen(test)
        test.fuzz_examples = chosen.max_examples
        return test

    return decorate


@st.composite
def damages(draw: Any) -> Callable[[bytes], bytes]:
    """Return a way to damage bytes: bits flipped, cut, padded, a hole, a part moved."""
    kind = draw(st.sampled_from(["flip", "cut", "pad", "hole", "move"]))
    places = draw(st.lists(st.floats(0, 1, exclude_max=True), min_size=3, max_size=3))
    bit, length = draw(st.integers(0, 7)), draw(st.integers(1, 64))

    def damage(data: bytes) -> bytes:
        at, other, third = (int(place * len(data)) for place in places)
        made = bytearray(data)
        if kind == "flip":
            made[at] ^= 1 << bit
            made[other] ^= 1 << (7 - bit)
        elif kind == "cut":
            del made[at:]
        elif kind == "pad":
            made[at:] = bytes(len(made) - at)
        elif kind == "hole":
            made[at : at + length] = bytes(min(length, len(made) - at))
        else:
            part = made[at : at + length]
            del made[at : at + length]
            made[min(other, third) : min(other, third)] = part
        return bytes(made)

    return damage
