"""Gumbel-max draws from the softmax, and who is committed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from udvla_ros.decoding import sampling
from udvla_ros.decoding.ranking import most_confident
from udvla_ros.decoding.sampling import entropy, gumbel, sample, sample_rows


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_greedy_is_the_arg_max_with_its_probability():
    logits = torch.tensor([[0.0, 2.0, 1.0], [5.0, 5.5, -1.0]])
    tokens, confidence = sample(logits.clone(), 0.0, generator())
    assert tokens.tolist() == [1, 1]
    torch.testing.assert_close(confidence, logits.softmax(-1)[:, 1])


def test_greedy_draws_no_noise():
    g = generator(3)
    state = g.get_state()
    sample(torch.randn(2, 5), 0.0, g)
    assert torch.equal(g.get_state(), state)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_samples_follow_the_softmax_at_their_temperature(temperature):
    logits = torch.tensor([1.0, 0.0, -1.0, 0.5])
    count = 40_000
    tokens, confidence = sample(logits.repeat(count, 1), temperature, generator())
    shares = torch.bincount(tokens, minlength=4) / count
    torch.testing.assert_close(shares, (logits / temperature).softmax(-1), atol=0.012, rtol=0)
    # The confidence is the model's own probability, whatever the temperature.
    torch.testing.assert_close(confidence, logits.softmax(-1)[tokens])


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_draws_by_groups_follow_the_softmax_too(temperature, monkeypatch):
    monkeypatch.setattr(sampling, "MANY", 512)
    logits = torch.randn(512, generator=generator(5))
    count = 60_000
    tokens, confidence = sample(logits.repeat(count, 1), temperature, generator())
    shares = torch.bincount(tokens, minlength=512) / count
    expected = (logits / temperature).softmax(-1)
    assert float((shares - expected).abs().max()) < 6 * float((expected.max() / count).sqrt())
    assert float(((shares - expected) ** 2 / expected).sum() * count) < 512 + 6 * (2 * 512) ** 0.5  # chi squared
    torch.testing.assert_close(confidence, logits.softmax(-1)[tokens])


@settings(max_examples=200)
@given(st.sampled_from([1, 5, 128, 4096]), st.integers(0, 2**31), st.sampled_from([0.01, 0.3, 1.0]))
def test_what_has_no_weight_is_never_drawn(size, seed, temperature):
    logits = 200 * torch.randn(16, size, generator=generator(seed))  # nearly all underflow
    logits[:, size // 2 + 1 :] = -torch.inf
    tokens, confidence = sample(logits, temperature, generator(seed))
    assert (tokens >= 0).all() and (tokens <= size // 2).all()
    assert torch.isfinite(confidence).all()


def test_rows_sampled_from_states_are_those_of_their_logits(monkeypatch):
    monkeypatch.setattr(sampling, "BLOCK", 3 * 256)  # three rows at a time
    states, head = torch.randn(2, 7, 16, generator=generator(1)), torch.randn(256, 16, generator=generator(2))
    for temperature in (0.0, 0.5, 1.0):
        tokens, confidence, unsure = sample_rows(states, head, temperature, generator(3), True)
        logits = states @ head.t()
        assert tokens.shape == (2, 7)
        torch.testing.assert_close(unsure, torch.distributions.Categorical(logits=logits).entropy())
        torch.testing.assert_close(confidence, logits.softmax(-1).gather(-1, tokens[..., None])[..., 0])
        if temperature == 0:
            assert torch.equal(tokens, logits.argmax(-1))


def test_seed_decides():
    logits = torch.zeros(20, 50)
    first = sample(logits.clone(), 1.0, generator(1))[0]
    assert torch.equal(first, sample(logits.clone(), 1.0, generator(1))[0])
    assert not torch.equal(first, sample(logits.clone(), 1.0, generator(2))[0])


def test_noise_is_finite_and_has_gumbels_mean():
    noise = gumbel(torch.Size([200_000]), generator(), torch.device("cpu"))
    assert torch.isfinite(noise).all()
    assert float(noise.mean()) == pytest.approx(np.euler_gamma, abs=0.01)


def test_half_precision_logits_are_compared_in_float32():
    states = torch.tensor([[[10.0, 10.0, -10.0]]], dtype=torch.bfloat16)
    _, confidence, _ = sample_rows(states, torch.eye(3, dtype=torch.bfloat16), 0.0, generator())
    assert confidence.dtype == torch.float32
    assert float(confidence) == pytest.approx(0.5, abs=1e-6)


rows = st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.5, 0.9, 1.0]), st.booleans()), min_size=1, max_size=8)


@settings(max_examples=200)
@given(rows, st.integers(0, 9))
def test_commitment_by_its_definition(row, keep):
    confidence = torch.tensor([[c for c, _ in row]])
    masked = torch.tensor([[m for _, m in row]])
    chosen = most_confident(confidence, masked, torch.tensor([keep]))[0].tolist()
    open_slots = [i for i, (_, m) in enumerate(row) if m]
    ranked = sorted(open_slots, key=lambda i: -confidence[0, i].item())  # stable: the first of equals
    assert {i for i, c in enumerate(chosen) if c} == set(ranked[: max(0, len(open_slots) - keep)])


def test_rows_of_a_batch_are_their_own():
    confidence = torch.tensor([[0.9, 0.1, 0.5], [0.2, 0.3, 0.4]])
    chosen = most_confident(confidence, torch.ones(2, 3, dtype=torch.bool), torch.tensor([1, 2]))
    assert chosen.tolist() == [[True, False, True], [False, False, True]]


def test_entropy_of_the_impossible_and_the_certain():
    logits = torch.tensor([[0.0, -torch.inf, 0.0], [3.0, -torch.inf, -torch.inf]])
    assert entropy(logits).tolist() == pytest.approx([np.log(2), 0.0])
