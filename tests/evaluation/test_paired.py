"""Two runs over the same episodes: what the pairs say."""

from __future__ import annotations

import pytest

from udvla_ros.errors import ConfigError
from udvla_ros.evaluation.paired import Paired, pair


def episodes(outcomes, **changes):
    return [
        {"task": "touch", "seed": seed, "instruction": "touch it", "condition": "plain", "success": won} | changes
        for seed, won in enumerate(outcomes)
    ]


def test_pairs_are_found_by_what_was_asked_and_where_in_any_order():
    first = episodes([True, True, False, False])
    second = episodes([True, False, True, False])[::-1]
    assert pair(first, second) == Paired(both=1, first=1, second=1, neither=1)


@pytest.mark.parametrize("changes", [{"task": "pick"}, {"instruction": "poke it"}, {"condition": "light"}])
def test_other_episodes_are_no_pairs(changes):
    with pytest.raises(ConfigError, match="share no episode"):
        pair(episodes([True]), episodes([True], **changes))


def test_difference_and_interval_as_published():
    """R. G. Newcombe, Statistics in Medicine 17 (1998), 2635, table III, method 10, for 36, 12, 2, 0."""
    told = Paired(both=36, first=12, second=2, neither=0)
    low, high = (Paired(36, 2, 12, 0)).interval()
    assert told.difference == pytest.approx(-0.2)
    assert (low, high) == pytest.approx((0.0569, 0.3404), abs=5e-4)


def test_no_discordant_pair_is_no_evidence():
    told = Paired(both=50, first=0, second=0, neither=0)
    assert told.difference == 0 and told.p_value() == 1.0
    low, high = told.interval()
    assert low < 0 < high and high < 0.08


def test_exact_test_counts_coin_throws():
    assert Paired(10, 0, 5, 0).p_value() == pytest.approx(2 / 32)
    assert Paired(10, 5, 5, 0).p_value() == 1.0
    assert Paired(10, 1, 9, 0).p_value() == pytest.approx(2 * 11 / 1024)


def test_swapping_the_two_turns_the_interval_around():
    there, back = Paired(30, 7, 3, 10).interval(), Paired(30, 3, 7, 10).interval()
    assert there == pytest.approx((-back[1], -back[0]))
