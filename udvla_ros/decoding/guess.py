"""The last chunk as a guess at the next one: its future images, and the actions it has not played yet."""

from __future__ import annotations

import numpy as np

from udvla_ros.decoding.interface import Guess
from udvla_ros.errors import TokenError
from udvla_ros.tokens.action import FastTokenizer


def remaining(visual: np.ndarray, actions: list[list[int]], fast: FastTokenizer, elapsed: int, slots: int) -> Guess:
    """Return the guess that the last chunk makes at one that starts ``elapsed`` steps later.

    FAST codes stand for frequencies of the whole chunk, so no code of the old chunk is a code of the new one:
    the rest of the old chunk, its last step repeated to fill the new one, is encoded anew.

    Args:
        visual: VQ codes ``[B, V]`` of the last chunk's future images, -1 where open.
        actions: its FAST codes per sample, without EOA.
        fast: the tokeniser of both.
        elapsed: action steps between the two observations.
        slots: action slots, EOA's included; where a sample's codes do not fit, no action is guessed.
    """
    chunks = np.stack([fast.decode(codes) for codes in actions])
    steps = np.minimum(np.arange(fast.chunk) + max(elapsed, 0), fast.chunk - 1)
    try:
        codes = fast.encode_batch(np.clip(chunks[:, steps], -1, 1), clip=True)
    except TokenError:  # a coefficient that no code of this tokeniser holds: then there is nothing to guess
        return Guess(np.asarray(visual), None)
    return Guess(np.asarray(visual), codes if max(map(len, codes)) < slots else None)
