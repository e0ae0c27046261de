"""What may follow, from left to right, against the lattice's answer over all slots."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from udvla_ros.errors import TokenError
from udvla_ros.tokens.action_lattice import FREE, Lattice


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32 - 1))
def test_following_is_the_row_of_allowed(seed: int) -> None:
    rng = np.random.default_rng(seed)
    vocabulary, states, slots = rng.integers(1, 7), rng.integers(1, 4), int(rng.integers(2, 7))
    lengths = rng.integers(0, 4, vocabulary)
    successors = rng.integers(-1, states, (states, vocabulary))
    lattice = Lattice(lengths, int(rng.integers(1, 9)), slots, successors)
    fixed, cell = np.full(slots, FREE), 0
    if not lattice.allowed().any():
        with pytest.raises(TokenError, match="give more action slots"):
            lattice.following(0)
        return
    for slot in range(slots):
        may = lattice.following(slot, cell)
        np.testing.assert_array_equal(may, lattice.allowed(fixed)[slot])
        code = int(rng.choice(np.flatnonzero(may)))
        fixed[slot] = code
        if code == vocabulary:
            break
        cell = lattice.after(cell, code)
    assert code == vocabulary
    assert lattice.best(np.zeros((slots, vocabulary + 1)), fixed) == fixed[: slot].tolist()
