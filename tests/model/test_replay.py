"""Whether a forward is recorded or compiled is decided by the clock, and nothing that fails or differs is taken."""

from __future__ import annotations

import copy

import pytest
import tiny
import torch
from torch import Tensor

from udvla_ros.errors import ConfigError
from udvla_ros.model.backbone import Backbone
from udvla_ros.model.runtime import RuntimeOptions

TOLERANCE = {"rtol": 1e-3, "atol": 1e-3}


def chosen(mode: str) -> tuple[Backbone, Tensor, Tensor]:
    """Let a model choose for the suffix's span; return it, its states and those of the plain forward."""
    net, prefix = tiny.backbone(), tiny.prefix([[1, 2, 3]])
    ids, suffix, n = torch.as_tensor(prefix.ids), net.suffix_ids[None], prefix.ids.shape[1]
    end = n + suffix.shape[1]
    with torch.inference_mode():
        sequence, cache = net.sequence(prefix.positions, prefix.modality), net.new_cache(1)
        net.states(ids, sequence.span(0, n), cache, torch.zeros(1, 0, dtype=torch.long))
        wanted = net.states(suffix, sequence.span(n, end), cache).clone()
        net.run_as(RuntimeOptions(compile=mode)).prepare(sequence, cache, [(n, end), (n, n)])
        states = net.states(suffix, sequence.span(n, end), cache)
        some = net.states(suffix, sequence.span(n, end), cache, torch.tensor([[4, 2]]))
        torch.testing.assert_close(some, states[:, [4, 2]])
    return net, states, wanted


def clock(monkeypatch, compiled, seconds) -> None:
    """A compiler and a clock of ours."""
    times = iter(seconds)
    monkeypatch.setattr("torch.compile", lambda function, dynamic: compiled(function))
    monkeypatch.setattr("udvla_ros.model.replay.fastest", lambda run, device: next(times))


def test_compiler_is_taken_where_it_is_faster(monkeypatch):
    calls = []
    clock(monkeypatch, lambda function: lambda *a: calls.append(1) or function(*a), [2.0, 1.0])
    net, states, wanted = chosen("auto")
    torch.testing.assert_close(states, wanted, **TOLERANCE)
    assert len(net.replay.forwards) == 1
    assert len(calls) == 5  # three to warm up, two to work
    assert "compiled is taken" in net.replay.said[0]
    assert not copy.deepcopy(net).replay.forwards  # a recording belongs to its weights


@pytest.mark.parametrize(("mode", "taken"), [("auto", 0), ("on", 1), ("off", 0)])
def test_slower_compiled_forward_is_taken_only_when_told(monkeypatch, mode, taken):
    clock(monkeypatch, lambda function: function, [1.0, 2.0])
    net, states, wanted = chosen(mode)
    assert len(net.replay.forwards) == taken
    torch.testing.assert_close(states, wanted, **TOLERANCE)


def test_failing_or_wrong_compiler_is_left_with_a_word(monkeypatch):
    def broken(function):
        raise RuntimeError("no compiler here")

    def wrong(function):
        return lambda *a: function(*a) + 1

    for compiled, word in ((broken, "no compiler here"), (wrong, "its result differs")):
        clock(monkeypatch, compiled, [])
        net, states, wanted = chosen("on")
        assert not net.replay.forwards
        assert word in net.replay.said[0]
        torch.testing.assert_close(states, wanted, **TOLERANCE)


@pytest.mark.slow
def test_the_real_compiler_says_the_same():
    net, states, wanted = chosen("on")
    assert net.replay.said or net.replay.forwards
    torch.testing.assert_close(states, wanted, **TOLERANCE)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"dtype": "int4"}, "dtype is 'int4'"),
        ({"weights": "nf4"}, "weights"),
        ({"compile": "yes"}, "compile is 'yes'"),
        ({"threads": 0}, "threads"),
    ],
)
def test_wrong_options_are_named(wrong, named):
    with pytest.raises(ConfigError, match=named):
        RuntimeOptions(**wrong)


def test_number_type_is_chosen_by_the_device(monkeypatch):
    assert RuntimeOptions().on(torch.device("cpu")).dtype == "float32"
    before = torch.backends.cuda.matmul.allow_tf32
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    try:
        assert RuntimeOptions().on(torch.device("cuda")).dtype == "bfloat16"
        assert not torch.backends.cuda.matmul.allow_tf32
        assert not torch.backends.cudnn.allow_tf32
        assert RuntimeOptions(dtype="float32", tf32=True).on(torch.device("cuda")).dtype == "float32"
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
