"""What the last chunk says about the next one: when it is asked, and when it must not be."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tiny

from udvla_ros.decoding.guess import remaining
from udvla_ros.policy import DecodeOptions, Observation, Policy

WARM = DecodeOptions(steps=4, warm_start=0.5, temperature=1.0)
DT = 0.1


def look(stamp: float, seed: int = 0) -> Observation:
    return Observation(tiny.images(seed), "touch the red cube", stamp)


class Spy:
    """A decoder that notes its guesses."""

    def __init__(self, decoder) -> None:
        self.decoder, self.guesses = decoder, []

    def __call__(self, prefix, options, seed, guess=None):
        self.guesses.append(guess)
        return self.decoder(prefix, options, seed, guess)


@pytest.fixture
def policy():
    made = Policy(tiny.bundle())
    made._decoders["jd3p"] = Spy(made._decoder("jd3p"))
    return made


@pytest.fixture
def guesses(policy):
    return policy._decoders["jd3p"].guesses


def test_the_guess_is_what_is_left_of_the_last_chunk(policy, guesses):
    first = policy.infer(look(5.0), WARM)
    policy.infer(look(5.2), WARM, previous=first)
    assert guesses[0] is None
    expected = remaining(first.codes[0][None], [first.codes[1]], tiny.fast(), 2, tiny.ACTION_SLOTS)
    assert (guesses[1].visual == expected.visual).all() and guesses[1].actions == expected.actions


@pytest.mark.parametrize("stamp", [5.0 + tiny.CHUNK * DT, 9.0, 4.5])
def test_a_chunk_with_nothing_left_or_of_the_future_is_no_guess(policy, guesses, stamp):
    first = policy.infer(look(5.0), WARM)
    policy.infer(look(stamp), WARM, previous=first)
    assert guesses == [None, None]


def test_without_the_option_the_last_chunk_changes_nothing(policy, guesses):
    cold = dataclasses.replace(WARM, warm_start=0.0)
    first = policy.infer(look(5.0), cold)
    with_it, without = (policy.infer(look(5.2), cold, 3, previous=p) for p in (first, None))
    assert (with_it.actions == without.actions).all()
    assert guesses == [None] * 3


def test_it_is_told_and_takes_fewer_forwards(policy):
    first = policy.infer(look(5.0), WARM)
    second = policy.infer(look(5.1), WARM, previous=first)
    assert (first.statistics["warm"], second.statistics["warm"]) == (False, True)
    assert second.statistics["forwards"] < first.statistics["forwards"]


def test_in_a_batch_each_row_has_its_own_past(policy):
    """Rows with and without a last chunk are decoded apart: what comes is what each would get alone."""
    greedy = dataclasses.replace(WARM, temperature=0.0)
    first = policy.infer(look(5.0), greedy)
    looks = [look(5.1, 1), look(5.2, 2), look(5.1, 3)]
    past = [first, None, first]
    together = policy.infer_batch(looks, greedy, 7, past)
    assert [c.statistics["warm"] for c in together] == [True, False, True]
    for row in (0, 1):
        alone = policy.infer(looks[row], greedy, 7, past[row])
        assert together[row].stamp == looks[row].stamp
        np.testing.assert_array_equal(together[row].codes[0] >= 0, alone.codes[0] >= 0)
    np.testing.assert_array_equal(together[1].actions, policy.infer(looks[1], greedy, 7).actions)
