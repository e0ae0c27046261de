"""Jacobi: code for code what autoregressive decoding gives, from any guess, in no more forwards."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import tiny
import torch

from udvla_ros.decoding.autoregressive import Autoregressive
from udvla_ros.decoding.interface import Decoded, DecodeOptions
from udvla_ros.decoding.jacobi import Jacobi
from udvla_ros.errors import ConfigError
from udvla_ros.model.backbone import Backbone

VISUAL_SLOTS = 10
LATTICE = tiny.fast().lattice(tiny.ACTION_SLOTS)
WORDS = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10]]
STARTS = ("mask", "random", "current")


@functools.lru_cache(maxsize=4)
def backbone(model: int = 0) -> Backbone:
    return tiny.backbone("causal", model)


def both(model: int, options: DecodeOptions, words=None, seed: int = 0) -> tuple[Decoded, Decoded]:
    prefix = tiny.prefix(words or WORDS, model)
    slow, fast = (kind(backbone(model), LATTICE)(prefix, options, seed) for kind in (Autoregressive, Jacobi))
    return slow, fast


def same(a: Decoded, b: Decoded) -> None:
    assert a.visual.tolist() == b.visual.tolist()
    assert a.actions == b.actions


def sentence(rng: np.random.Generator) -> list[int]:
    return rng.integers(1, 13, rng.integers(1, tiny.TEXT_SLOTS)).tolist()


@pytest.mark.parametrize("block", range(8))
def test_greedy_autoregressive_codes_on_200_random_models_and_prompts(block):
    for model in range(25 * block, 25 * block + 25):
        rng = np.random.default_rng(model)
        words = [sentence(rng) for _ in range(1 + model % 3)]
        options = DecodeOptions(
            start=STARTS[rng.integers(3)],
            foresight="off" if rng.integers(5) == 0 else "full",
        )
        slow, fast = both(model, options, words, model)
        same(slow, fast)
        assert fast.converged
        assert fast.forwards <= slow.forwards


@pytest.mark.parametrize("start", STARTS)
def test_sampled_codes_are_the_same_as_well(start):
    for model in range(5):
        slow, fast = both(model, DecodeOptions(temperature=1.0, start=start), seed=model)
        same(slow, fast)
        assert fast.converged


def test_cache_changes_no_token():
    for model in range(5):
        cached, full = (both(model, DecodeOptions(use_cache=cache))[1] for cache in (True, False))
        same(cached, full)
        assert len(cached.steps) == len(full.steps)
        # What is final is not run again.
        tokens = [s.forward_tokens for s in cached.steps]
        assert tokens == sorted(tokens, reverse=True)
        assert tokens[-1] < tokens[0] == tiny.layout().suffix_length - 1


def test_a_model_that_ignores_its_input_is_done_in_two_forwards():
    """The second forward finds what the first did; slot by slot it takes one for each code."""
    net = tiny.backbone("causal", 1)
    net.decoder.embedding.data[:] = 1.0
    slow, fast = (kind(net, LATTICE)(tiny.prefix(WORDS), DecodeOptions(), 0) for kind in (Autoregressive, Jacobi))
    same(slow, fast)
    assert len(fast.steps) <= 2
    assert len(slow.steps) > VISUAL_SLOTS


@pytest.mark.parametrize("limit", [1, 2, 5, 9])
@pytest.mark.parametrize("start", STARTS)
def test_early_exit_keeps_the_codes_that_are_settled(limit, start):
    for model in range(4):
        slow, fast = both(model, DecodeOptions(iterations=limit, start=start))
        assert len(fast.steps) <= limit
        # Each iteration settles a code at least, whatever the guess was.
        assert fast.visual[:, :limit].tolist() == slow.visual[:, :limit].tolist()
        assert ((fast.visual >= 0) & (fast.visual < tiny.VISUAL)).all()
        for codes in fast.actions:
            assert tiny.fast().decode(codes).shape == (tiny.CHUNK, tiny.DIMENSIONS)
        if fast.converged:
            same(slow, fast)


def test_it_says_whether_it_converged():
    whole = both(2, DecodeOptions())[1]
    assert whole.converged
    needed = len(whole.steps)
    exact, short = (both(2, DecodeOptions(iterations=n))[1] for n in (needed, needed - 1))
    assert exact.converged
    same(exact, whole)
    assert short.converged is False
    assert short.forwards == whole.forwards - 1


@pytest.mark.parametrize("options", [{}, {"foresight": "off"}, {"iterations": 3}])
def test_statistics_count_every_token_once(options):
    for model in range(4):
        decoded = both(model, DecodeOptions(**options))[1]
        images = 0 if "foresight" in options else VISUAL_SLOTS * len(WORDS)
        assert sum(s.visual_committed for s in decoded.steps) == images
        assert sum(s.action_committed for s in decoded.steps) == sum(len(codes) + 1 for codes in decoded.actions)
        assert all(0 <= s.visual_confidence <= 1 and 0 <= s.action_confidence <= 1 for s in decoded.steps)
        assert all(s.visual_committed + s.action_committed > 0 for s in decoded.steps)


def test_current_starts_from_the_images_as_they_are(monkeypatch):
    prefix, layout, net = tiny.prefix(WORDS, 7), tiny.layout(), backbone()
    seen, original = [], net.states
    monkeypatch.setattr(net, "states", lambda ids, *rest: seen.append(ids.clone()) or original(ids, *rest))
    Jacobi(net, LATTICE)(prefix, DecodeOptions(start="current"), 0)
    guess = seen[1]  # after the prefill
    assert torch.equal(guess[:, : layout.image_tokens], torch.as_tensor(prefix.ids[:, -layout.image_tokens :]))
    assert (guess[:, layout.image_tokens + 1 :] == layout.vocabulary.mask).all()


def test_wrong_options_are_named():
    with pytest.raises(ConfigError, match="start is 'noise'; known: mask, random, current"):
        DecodeOptions(start="noise")
    with pytest.raises(ConfigError, match="iterations is 0"):
        DecodeOptions(iterations=0)
    with pytest.raises(ConfigError, match="'jacobi' cannot sketch"):
        Jacobi(backbone(), LATTICE)(tiny.prefix(WORDS), DecodeOptions(foresight="sketch"), 0)
