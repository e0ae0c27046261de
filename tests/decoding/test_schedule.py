"""Both schedules against their formulas."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udvla_ros.decoding.schedule import masked_shares


@given(st.integers(1, 256))
def test_public_keeps_the_cosine_of_all_slots(steps):
    shares = masked_shares("public", steps)
    expected = [math.cos(math.pi / 2 * (s + 1) / steps) for s in range(steps)]
    assert shares == pytest.approx(expected, abs=1e-12)


@given(st.integers(1, 256))
def test_paper_keeps_a_cosine_of_what_is_left(steps):
    shares = masked_shares("paper", steps)
    before = 1.0
    for t, after in zip(range(steps, 1, -1), shares, strict=False):
        assert after / before == pytest.approx(math.cos(math.pi / 2 * (steps + 1 - t) / (steps + 1)))
        before = after
    assert shares[-1] == 0.0


def test_values_by_hand():
    assert masked_shares("public", 3) == pytest.approx([math.sqrt(3) / 2, 0.5, 0])
    assert masked_shares("paper", 2) == pytest.approx([math.sqrt(3) / 2, 0])
    assert masked_shares("paper", 3)[1] == pytest.approx(math.cos(math.pi / 8) * math.cos(math.pi / 4))


@given(st.sampled_from(["public", "paper"]), st.integers(1, 256))
def test_shares_fall_to_zero_in_as_many_steps(schedule, steps):
    shares = masked_shares(schedule, steps)
    assert len(shares) == steps
    assert all(0 <= b <= a <= 1 for a, b in zip([1.0, *shares], shares, strict=False))
    assert shares[-1] == 0.0
