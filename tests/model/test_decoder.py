"""One forward: cached or not, some rows or all of them, with or without masks and gradients, it says the same."""

from __future__ import annotations

import copy

import pytest
import tiny
import torch
from torch import Tensor

from udvla_ros.errors import BundleError
from udvla_ros.model.backbone import Backbone
from udvla_ros.model.runtime import RuntimeOptions
from udvla_ros.model.shape import Shape

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
NOTHING = torch.zeros(2, 0, dtype=torch.long)


class Setting:
    """A model, prefixes of different texts, a half-written suffix."""

    def __init__(self, kind: str = "hybrid", texts=((1, 2, 3), (4,)), seed: int = 1, **changes) -> None:
        self.net = tiny.backbone(kind, seed, **changes)
        layout, batch = tiny.layout(), len(texts)
        self.prefix = tiny.prefix([list(t) for t in texts], 1)
        self.ids, positions, modality = tiny.tensors(self.prefix)
        self.suffix = torch.as_tensor(layout.suffix(tiny.image_codes(batch, 2), [[1, 2], [3, 4, 5]][:batch]))
        self.suffix[:, self.net.visual_slots[::2]] = layout.vocabulary.mask
        self.n, self.length = self.ids.shape[1], self.suffix.shape[1]
        self.mask, self.where = self.net.sequence_mask(modality, positions)
        self.sequence = self.net.sequence(self.prefix.positions, self.prefix.modality)
        self.rows = self.sequence.span(self.n, self.n + self.length)
        self.cache = self.net.new_cache(batch)

    def reference(self) -> Tensor:
        """The suffix's states of a forward by itself under the mask as a tensor."""
        return self.net.hidden(torch.cat([self.ids, self.suffix], 1), self.where, self.mask)[:, self.n :]

    def prefill(self) -> None:
        nothing = NOTHING[: len(self.ids)]
        assert self.net.states(self.ids, self.sequence.span(0, self.n), self.cache, nothing).numel() == 0

    def cached(self, outputs: Tensor | None = None) -> Tensor:
        self.prefill()
        return self.net.states(self.suffix, self.rows, self.cache, outputs)


def gathered(states: Tensor, outputs: Tensor) -> Tensor:
    return states.gather(1, outputs[:, :, None].expand(-1, -1, states.shape[-1]))


@pytest.mark.parametrize("kind", ["hybrid", "causal"])
@pytest.mark.parametrize("texts", [((1, 2, 3), (4,)), ((1, 2, 3),)], ids=["padding differs", "no mask"])
@pytest.mark.parametrize("heads", [2, 4])
@torch.inference_mode()
def test_cached_rows_are_those_of_the_full_forward(kind, texts, heads, monkeypatch):
    for limit in (1 << 20, 0):  # plain products, and the fused attention
        monkeypatch.setattr("udvla_ros.model.decoder.SMALL", limit)
        setting = Setting(kind, texts, num_key_value_heads=heads)
        reference = setting.reference()
        torch.testing.assert_close(setting.cached(), reference, **TOLERANCE)
        alone = setting.net.states(torch.cat([setting.ids, setting.suffix], 1), whole(setting), None)
        torch.testing.assert_close(alone[:, setting.n :], reference, **TOLERANCE)
        outputs = torch.tensor([[0, 5, 7], [2, 5, 27]])[: len(texts)]
        torch.testing.assert_close(setting.cached(outputs), gathered(reference, outputs), **TOLERANCE)


def whole(setting: Setting):
    return setting.sequence.span(0, setting.n + setting.length)


@pytest.mark.parametrize("seed", range(3))
@torch.inference_mode()
def test_cached_equals_uncached_in_double_precision(seed):
    setting = Setting(seed=seed)
    setting.net.double()
    setting.sequence = setting.net.sequence(setting.prefix.positions, setting.prefix.modality)
    setting.rows, setting.cache = whole(setting), setting.net.new_cache(2)
    full = setting.net.states(torch.cat([setting.ids, setting.suffix], 1), setting.rows, None)[:, setting.n :]
    setting.rows = setting.sequence.span(setting.n, setting.n + setting.length)
    torch.testing.assert_close(setting.cached(), full, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", ["merged", "bidirectional"])
@torch.inference_mode()
def test_cached_suffix_is_another_function_where_the_prefix_sees_it(kind):
    setting = Setting(kind)
    assert (setting.cached() - setting.reference()).abs().max() > 1e-2


@pytest.mark.parametrize("kind", ["hybrid", "causal"])
@torch.inference_mode()
def test_suffix_can_be_overwritten_step_after_step(kind):
    setting = Setting(kind)
    setting.prefill()
    for step in range(3):
        setting.suffix[:, setting.net.visual_slots[step:]] = setting.net.layout.vocabulary.mask
        cached = setting.net.states(setting.suffix, setting.rows, setting.cache)
        torch.testing.assert_close(cached, setting.reference(), **TOLERANCE)


@pytest.mark.parametrize("kind", ["hybrid", "causal"])
@torch.inference_mode()
def test_parts_may_stay_in_the_cache_while_what_follows_changes(kind):
    """Text while the images change; then text, images and future while the action is run alone."""
    setting = Setting(kind)
    layout, net = tiny.layout(), setting.net
    setting.prefill()
    setting.ids[:, layout.text_slots :] = torch.as_tensor(layout.images(tiny.image_codes(2, 9)))
    span = setting.sequence.span(layout.text_slots, setting.n)
    net.states(setting.ids[:, layout.text_slots :], span, setting.cache, NOTHING)
    states = net.states(setting.suffix, setting.rows, setting.cache)
    torch.testing.assert_close(states, setting.reference(), **TOLERANCE)
    begin = layout.template.action_start
    setting.suffix[:, begin + 1] = layout.vocabulary.mask
    action = setting.sequence.span(setting.n + begin, setting.n + setting.length)
    states = net.states(setting.suffix[:, begin:], action, setting.cache)
    torch.testing.assert_close(states, setting.reference()[:, begin:], **TOLERANCE)


@torch.inference_mode()
def test_batch_equals_its_rows_alone():
    setting = Setting()
    everything = torch.cat([setting.ids, setting.suffix], 1)
    both = setting.net.hidden(everything, setting.where, setting.mask)
    for row in range(2):
        one = slice(row, row + 1)
        real = everything[row] != setting.net.layout.vocabulary.pad
        alone = setting.net.hidden(everything[one], setting.where[one], setting.mask[one])
        torch.testing.assert_close(both[row][real], alone[0][real], **TOLERANCE)


def test_cache_holds_grouped_heads_and_the_whole_sequence():
    layout, cache = tiny.layout(), tiny.backbone().new_cache(3)
    assert cache.batch == 3
    assert cache.buffer.shape == (2, 2, 3, 2, layout.prefix_length + layout.suffix_length, 8)


# -- training ----------------------------------------------------------------------------------------


def gradients(net: Backbone, setting: Setting) -> tuple[Tensor, list[Tensor]]:
    net.zero_grad()
    states = net.hidden(torch.cat([setting.ids, setting.suffix], 1), setting.where, setting.mask)
    states[:, setting.n :].square().sum().backward()
    return states.detach(), [p.grad.clone() for p in net.decoder.parameters() if p.grad is not None]


def test_recomputed_activations_give_the_same_gradients():
    setting = Setting()
    plain = gradients(setting.net, setting)
    setting.net.decoder.checkpointing = True
    torch.testing.assert_close(gradients(setting.net, setting), plain)


def test_forward_with_gradients_is_the_one_without():
    setting = Setting()
    with torch.inference_mode():
        wanted = setting.reference()
    states, found = gradients(setting.net, setting)
    torch.testing.assert_close(states[:, setting.n :], wanted, **TOLERANCE)
    assert len(found) == len(list(setting.net.decoder.parameters())) - 1  # the head was not asked


def test_autocast_keeps_the_residual_in_float32():
    setting = Setting(initializer_range=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        states, found = gradients(setting.net, setting)
    assert states.dtype == torch.float32
    assert all(g.dtype == torch.float32 for g in found)
    with torch.inference_mode():
        wanted = setting.reference()
    assert 1e-4 < (states[:, setting.n :] - wanted).norm() / wanted.norm() < 0.05


def test_dropout_acts_in_training_alone():
    setting = Setting(attention_dropout=0.5)
    assert torch.equal(setting.reference(), setting.reference())
    setting.net.train()
    assert not torch.equal(setting.reference(), setting.reference())


def test_decoding_between_training_steps_disturbs_neither():
    """Memory that decoding keeps between calls is written in inference mode and out of it."""
    setting = Setting()
    with torch.inference_mode():
        first = setting.cached()
    gradients(setting.net, setting)
    with torch.no_grad():
        torch.testing.assert_close(setting.cached(), first)


def test_changed_weights_are_seen():
    setting = Setting()
    version = setting.net.version()
    with torch.inference_mode():
        first = setting.cached()
    setting.net.decoder.load_state_dict(tiny.backbone("hybrid", 2).decoder.state_dict())
    assert setting.net.version() != version
    with torch.inference_mode():
        assert (setting.cached() - first).abs().max() > 0.1
        torch.testing.assert_close(setting.cached(), setting.reference(), **TOLERANCE)
    copied = copy.deepcopy(setting.net)
    with torch.no_grad():
        for parameter in setting.net.decoder.parameters():
            parameter.zero_()
    setting.net = copied
    with torch.inference_mode():
        assert setting.cached().abs().max() > 0.1


# -- number types ------------------------------------------------------------------------------------


def relative(weights: str = "float", dtype: torch.dtype = torch.float32) -> float:
    with torch.inference_mode():
        reference = Setting(hidden_size=64, intermediate_size=128, initializer_range=0.1).reference()
        setting = Setting(hidden_size=64, intermediate_size=128, initializer_range=0.1)
        setting.net.to(dtype).run_as(RuntimeOptions(weights=weights))
        setting.sequence = setting.net.sequence(setting.prefix.positions, setting.prefix.modality)
        setting.rows = setting.sequence.span(setting.n, setting.n + setting.length)
        setting.cache = setting.net.new_cache(2)
        states, some = setting.cached(), setting.cached(torch.tensor([[3], [4]]))
        assert states.dtype == dtype
        error = (states.float() - reference).norm() / reference.norm()
        assert (some.float() - gathered(states.float(), torch.tensor([[3], [4]]))).norm() / some.float().norm() < 0.06
        return float(error)


def test_rounded_weights_and_half_precision_are_near():
    assert 1e-5 < relative("int8") < 0.1
    assert 1e-5 < relative("fp8") < 0.2
    assert 1e-5 < relative("int8", torch.bfloat16) < 0.1
    assert 1e-5 < relative(dtype=torch.bfloat16) < 0.05
    assert 1e-6 < relative(dtype=torch.float16) < 0.01


def test_positions_do_not_blur_in_half_precision():
    decoder = tiny.backbone().decoder
    positions = torch.tensor([[200, 201, 202]])
    exact = decoder.rotations(positions, torch.float32)
    for half, whole in zip(decoder.to(torch.bfloat16).rotations(positions, torch.bfloat16), exact, strict=True):
        assert torch.equal(half, whole.to(torch.bfloat16))


# -- the shape ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"hiden_size": 4}, "unknown key 'hiden_size'"),
        ({"hidden_size": "wide"}, "hidden_size 'wide'"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"attention_bias": True}, "attention_bias True"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type 'yarn'"),
        ({"num_attention_heads": 0}, "num_attention_heads 0"),
        ({"num_attention_heads": 3}, "3 heads"),
        ({"num_key_value_heads": 3}, "3 key heads"),
    ],
)
def test_shapes_that_cannot_be_are_named(wrong, named):
    with pytest.raises(BundleError, match=named):
        Shape.of({**tiny.BACKBONE, **wrong}, 100)


def test_rope_parameters_of_newer_files_are_read():
    assert Shape.of({"rope_parameters": {"rope_theta": 7.0, "rope_type": "default"}}, 100).rope_theta == 7.0
