"""On a GPU: the CPU's tokens in float32, graphs that say what the plain forward says, weights of other types.

Run them with ``pytest -m cuda``; ``udvla bench gpu`` measures.
"""

from __future__ import annotations

import pytest
import tiny
import torch

from udvla_ros.decoding.interface import DecodeOptions
from udvla_ros.decoding.jd3p import JD3P
from udvla_ros.model.checkpoint import Bundle
from udvla_ros.model.runtime import RuntimeOptions

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU is visible")]
LATTICE = tiny.fast().lattice(tiny.ACTION_SLOTS)


def decoded(net, text=((1, 2, 3),), **options):
    return JD3P(net, LATTICE)(tiny.prefix([list(t) for t in text]), DecodeOptions(**options), 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.saved(tmp_path_factory.mktemp("bundles") / "tiny")


def loaded(folder, **runtime):
    return Bundle.load(folder, "cuda", runtime=RuntimeOptions(**runtime)).backbone


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("options", [{}, {"steps": 3}, {"foresight": "off"}, {"use_cache": False}])
def test_greedy_tokens_in_float32_are_the_cpus(folder, graphs, options):
    net = loaded(folder, dtype="float32", graphs=graphs)
    for text in ([(1, 2, 3)], [(4,)], [(1, 2), (3,)]):
        here, there = decoded(tiny.backbone(), text, **options), decoded(net, text, **options)
        assert (here.visual == there.visual).all()
        assert here.actions == there.actions


def test_graphs_and_plain_forwards_draw_the_same(folder):
    nets = [loaded(folder, graphs=graphs) for graphs in (False, True)]
    assert nets[0].dtype == torch.bfloat16
    for seed in range(3):
        one, two = (JD3P(net, LATTICE)(tiny.prefix([[1, 2]]), DecodeOptions(temperature=1.0), seed) for net in nets)
        assert (one.visual == two.visual).all()
    assert nets[1].replay.forwards
    assert not nets[1].replay.said


@pytest.mark.parametrize("weights", ["int8", "fp8"])
def test_rounded_weights_stand_in_place_of_the_stored_ones(folder, weights):
    net = loaded(folder, weights=weights)
    assert net.decoder.rounded
    assert not any(name.endswith(".weight") for name, _ in net.decoder.named_parameters())
    assert (decoded(net).visual >= 0).all()


def test_logits_of_halves_are_summed_in_float32(folder):
    net = loaded(folder)
    states = torch.randn(3, tiny.BACKBONE["hidden_size"], device="cuda", dtype=torch.bfloat16)
    with torch.inference_mode():
        found = net.logits(states)
    exact = states.double() @ net.decoder.head.double().t()
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)
