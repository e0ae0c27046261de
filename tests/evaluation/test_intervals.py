"""Wilson intervals against known values and laws."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from udvla_ros.evaluation.intervals import percentiles, rate_with_interval, stage_percentiles, wilson

trials = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(trials)
def test_agrees_with_scipy(drawn):
    successes, count = drawn
    other = binomtest(successes, count).proportion_ci(0.95, method="wilson")
    assert wilson(successes, count) == pytest.approx((other.low, other.high), abs=1e-6)


@given(trials)
def test_holds_the_rate_and_mirrors(drawn):
    successes, count = drawn
    low, high = wilson(successes, count)
    assert 0.0 <= low <= successes / count <= high <= 1.0 and high > low
    mirrored = wilson(count - successes, count)
    assert (1 - high, 1 - low) == pytest.approx(mirrored)


def test_nothing_tried_says_nothing():
    assert wilson(0, 0) == (0.0, 1.0)
    assert rate_with_interval(0, 0) == {"rate": None, "ci95": [0.0, 1.0]}


@pytest.mark.parametrize("counts", [(3, 2), (-1, 2)])
def test_impossible_counts_are_refused(counts):
    with pytest.raises(ValueError):
        wilson(*counts)


def test_percentiles_by_stage():
    timings = [{"total": float(i), "encode": 1.0} for i in range(101)]
    stages = stage_percentiles(timings)
    assert list(stages) == ["total", "encode"]
    assert stages["total"] == {"p50": 50.0, "p95": 95.0, "p99": 99.0}
    assert percentiles([]) == {}
