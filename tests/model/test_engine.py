"""The fast forward says what the library's modules say, whatever rows it runs and whatever it leaves out."""

from __future__ import annotations

import copy

import pytest
import tiny
import torch
from torch import Tensor

from udvla_ros.errors import ConfigError
from udvla_ros.model import rounding
from udvla_ros.model.backbone import Backbone
from udvla_ros.model.checkpoint import Bundle
from udvla_ros.model.compiled import choose
from udvla_ros.model.engine import Engine
from udvla_ros.model.runtime import RuntimeOptions

TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}
NOTHING = torch.zeros(2, 0, dtype=torch.long)


class Setting:
    """A model, two prefixes of different texts, a half-written suffix, and what the modules say about it."""

    def __init__(self, kind: str = "hybrid", runtime: RuntimeOptions | None = None, **changes) -> None:
        self.net = tiny.backbone(kind, 1, **changes)
        self.net.runtime = runtime or RuntimeOptions()
        layout = tiny.layout()
        self.ids, positions, modality = tiny.tensors(tiny.prefix([[1, 2, 3], [4]], 1))
        self.suffix = torch.as_tensor(layout.suffix(tiny.image_codes(2, 2), [[1, 2], [3, 4, 5]]))
        self.suffix[:, self.net.visual_slots[::2]] = layout.vocabulary.mask
        self.n, self.length = self.ids.shape[1], self.suffix.shape[1]
        self.mask, self.where = self.net.sequence_mask(modality, positions)

    def reference(self, suffix: Tensor | None = None) -> Tensor:
        everything = torch.cat([self.ids, self.suffix if suffix is None else suffix], 1)
        return self.net.hidden(everything, self.where, self.mask)[:, self.n :]

    def prefilled(self):
        engine, cache = self.net.engine(), self.net.new_cache(2)
        sequence = engine.sequence(self.where, self.mask)
        engine.hidden(self.ids, sequence.span(0, self.n), cache, NOTHING)
        return engine, sequence, cache


@pytest.mark.parametrize("kind", ["hybrid", "causal"])
@pytest.mark.parametrize("changes", [{}, {"num_key_value_heads": 4}, {"attention_bias": True, "mlp_bias": True}])
@torch.inference_mode()
def test_states_are_those_of_the_modules(kind, changes, monkeypatch):
    for limit in (1 << 20, 0):  # plain products, and the library's fused attention
        monkeypatch.setattr("udvla_ros.model.engine.SMALL", limit)
        setting = Setting(kind, **changes)
        engine, sequence, cache = setting.prefilled()
        states = engine.hidden(setting.suffix, sequence.span(setting.n, setting.n + setting.length), cache)
        torch.testing.assert_close(states, setting.reference(), **TOLERANCE)
        outputs = torch.tensor([[0, 5, 7], [2, 5, 27]])
        some = engine.hidden(setting.suffix, sequence.span(setting.n, setting.n + setting.length), cache, outputs)
        rows = outputs[:, :, None].expand(-1, -1, states.shape[-1])
        torch.testing.assert_close(some, setting.reference().gather(1, rows), **TOLERANCE)


@pytest.mark.parametrize("kind", ["hybrid", "causal"])
@torch.inference_mode()
def test_text_may_stay_in_the_cache_while_the_images_change(kind):
    setting = Setting(kind)
    text = tiny.layout().text_slots
    engine, sequence, cache = setting.prefilled()
    setting.ids[:, text:] = torch.as_tensor(tiny.layout().images(tiny.image_codes(2, 9)))
    engine.hidden(setting.ids[:, text:], sequence.span(text, setting.n), cache, NOTHING)
    states = engine.hidden(setting.suffix, sequence.span(setting.n, setting.n + setting.length), cache)
    torch.testing.assert_close(states, setting.reference(), **TOLERANCE)


@torch.inference_mode()
def test_scattered_rows_that_are_all_rows_are_exact_in_any_order():
    setting = Setting()
    engine, sequence, cache = setting.prefilled()
    order = torch.stack([torch.randperm(setting.length, generator=torch.Generator().manual_seed(s)) for s in (0, 1)])
    span = sequence.scattered(order + setting.n, setting.n + setting.length)
    states = engine.hidden(setting.suffix.gather(1, order), span, cache)
    rows = order[:, :, None].expand(-1, -1, states.shape[-1])
    torch.testing.assert_close(states, setting.reference().gather(1, rows), **TOLERANCE)


@torch.inference_mode()
def test_scattered_rows_leave_the_others_as_they_were():
    setting = Setting()
    engine, sequence, cache = setting.prefilled()
    engine.hidden(setting.suffix, sequence.span(setting.n, setting.n + setting.length), cache)
    before = cache.buffer.clone()
    rows = torch.tensor([[1, 4], [3, 6]])
    setting.suffix.scatter_(1, rows, tiny.layout().vocabulary.visual_first + 5)
    engine.hidden(setting.suffix.gather(1, rows), sequence.scattered(rows + setting.n, setting.n + 29), cache)
    changed = (before != cache.buffer).any(-1).any(0).any(0).any(1)  # [B, L]
    assert [row.nonzero().flatten().tolist() for row in changed] == (rows + setting.n).tolist()


# -- weights -----------------------------------------------------------------------------------------


def test_parameters_stay_parameters_and_nothing_is_stored_twice():
    setting = Setting()
    names = {name: value.clone() for name, value in setting.net.lm.state_dict().items()}
    with torch.inference_mode():
        setting.prefilled()
    layer = setting.net.lm.model.layers[0]
    assert layer.self_attn.k_proj.weight.untyped_storage().data_ptr() == (
        layer.self_attn.q_proj.weight.untyped_storage().data_ptr()
    )
    for name, value in setting.net.lm.state_dict().items():
        assert torch.equal(value, names[name])
    setting.net.train()
    setting.reference().sum().backward()
    assert layer.self_attn.v_proj.weight.grad.abs().max() > 0


@pytest.mark.parametrize("weights", ["float", "int8"])
def test_changed_weights_are_seen(weights):
    setting = Setting(runtime=RuntimeOptions(weights=weights))

    def states() -> Tensor:
        with torch.inference_mode():
            engine, sequence, cache = setting.prefilled()
            return engine.hidden(setting.suffix, sequence.span(setting.n, setting.n + setting.length), cache)

    first = states()
    other = tiny.backbone("hybrid", 2)
    setting.net.lm.load_state_dict(other.lm.state_dict())  # written into the same memory
    second = states()
    for parameter in setting.net.lm.parameters():
        parameter.data = parameter.data.clone()  # moved elsewhere
    copied = copy.deepcopy(setting.net)
    assert (first - second).abs().max() > 0.1
    torch.testing.assert_close(states(), second)
    setting.net = copied
    torch.testing.assert_close(states(), second)
    if weights == "float":
        with torch.inference_mode():
            torch.testing.assert_close(second, setting.reference(), **TOLERANCE)


def test_a_bundle_is_saved_and_loaded_after_it_was_run(tmp_path):
    bundle = tiny.bundle()
    with torch.inference_mode():
        bundle.backbone.engine()
    loaded = Bundle.load(bundle.save(tmp_path / "bundle"), runtime=RuntimeOptions(dtype="bfloat16", threads=1))
    assert loaded.backbone.dtype == torch.bfloat16
    assert loaded.backbone.runtime.dtype == "bfloat16"
    for name, value in bundle.backbone.lm.state_dict().items():
        torch.testing.assert_close(loaded.backbone.lm.state_dict()[name], value.bfloat16())


# -- options -----------------------------------------------------------------------------------------


def relative(runtime: RuntimeOptions, dtype: torch.dtype = torch.float32) -> float:
    with torch.inference_mode():
        plain = Setting(hidden_size=64, intermediate_size=128, initializer_range=0.1)
        reference = plain.reference()
        setting = Setting(runtime=runtime, hidden_size=64, intermediate_size=128, initializer_range=0.1)
        setting.net.to(dtype)
        engine, sequence, cache = setting.prefilled()
        states = engine.hidden(setting.suffix, sequence.span(setting.n, setting.n + setting.length), cache)
        assert states.dtype == dtype
        return float((states.float() - reference).norm() / reference.norm())


def test_rounded_weights_and_half_precision_are_near():
    assert 1e-5 < relative(RuntimeOptions(weights="int8")) < 0.05
    assert 1e-5 < relative(RuntimeOptions(dtype="bfloat16"), torch.bfloat16) < 0.05
    assert 1e-6 < relative(RuntimeOptions(dtype="float16"), torch.float16) < 0.01


@pytest.mark.parametrize("rows", [1, 40])
def test_both_integer_products_are_near_the_float_one(rows, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(*shape, generator=generator) for shape in ((rows, 64), (48, 64), (48,)))
    wanted = torch.nn.functional.linear(x, weight, bias)
    packed = rounding.rounded_linear(weight, bias)

    def gone(*_):
        raise AttributeError("no such operator any more")

    monkeypatch.setattr(rounding, "_packed", gone)
    plain = rounding.rounded_linear(weight, bias)
    for product in (packed, plain):
        error = (product(x) - wanted).norm() / wanted.norm()
        assert 1e-4 < error < 0.03


def test_positions_do_not_blur_in_half_precision():
    net: Backbone = tiny.backbone()
    exact = net.lm.model.rotary_emb.inv_freq.clone()
    net.to(torch.bfloat16).to("cpu")
    assert torch.equal(net.lm.model.rotary_emb.inv_freq, exact)
    assert net.lm.model.rotary_emb.inv_freq.dtype == torch.float32


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"dtype": "int4"}, "dtype is 'int4'"), ({"weights": "nf4"}, "weights"), ({"compile": "yes"}, "compile is 'yes'"),
     ({"threads": 0}, "threads")],
)  # fmt: skip
def test_wrong_options_are_named(wrong, named):
    with pytest.raises(ConfigError, match=named):
        RuntimeOptions(**wrong)


# -- compiler ----------------------------------------------------------------------------------------


def chosen(monkeypatch, mode: str, compiled, seconds) -> tuple[Engine, Tensor, Tensor]:
    """Choose for one span with a compiler and a clock of ours; return engine, its states and the plain ones."""
    setting = Setting(runtime=RuntimeOptions(compile=mode))
    one = slice(0, 1)
    clock = iter(seconds)
    monkeypatch.setattr("torch.compile", lambda function, dynamic: compiled(function))
    monkeypatch.setattr("udvla_ros.model.compiled._seconds", lambda run, device: next(clock))
    with torch.inference_mode():
        engine, cache = setting.net.engine(), setting.net.new_cache(1)
        sequence = engine.sequence(setting.where[one], setting.mask[one])
        engine.hidden(setting.ids[one], sequence.span(0, setting.n), cache, NOTHING[one])
        span = (setting.n, setting.n + setting.length)
        choose(engine, sequence, cache, [span])
        states = engine.hidden(setting.suffix[one], sequence.span(*span), cache)
    return engine, states, setting.reference()[one]


def test_compiler_is_taken_where_it_is_faster(monkeypatch):
    calls = []

    def compiled(function):
        return lambda *a: calls.append(1) or function(*a)

    engine, states, reference = chosen(monkeypatch, "auto", compiled, [2.0, 1.0])
    torch.testing.assert_close(states, reference, **TOLERANCE)
    assert len(engine.compiled) == 1
    assert len(calls) == 4  # three to warm up, one to work
    assert "compiled is taken" in engine.said[0]


@pytest.mark.parametrize(("mode", "taken"), [("auto", 0), ("on", 1)])
def test_slower_compiled_forward_is_taken_only_when_told(monkeypatch, mode, taken):
    engine, states, reference = chosen(monkeypatch, mode, lambda function: function, [1.0, 2.0])
    assert len(engine.compiled) == taken
    torch.testing.assert_close(states, reference, **TOLERANCE)


def test_failing_or_wrong_compiler_is_left_with_a_word(monkeypatch):
    def broken(function):
        raise RuntimeError("no compiler here")

    def wrong(function):
        return lambda *a: function(*a) + 1

    for compiled, word in ((broken, "no compiler here"), (wrong, "its result differs")):
        engine, states, reference = chosen(monkeypatch, "on", compiled, [])
        assert not engine.compiled
        assert word in engine.said[0]
        torch.testing.assert_close(states, reference, **TOLERANCE)


@pytest.mark.slow
def test_the_real_compiler_says_the_same():
    setting = Setting(runtime=RuntimeOptions(compile="on"))
    one = slice(0, 1)
    with torch.inference_mode():
        engine, cache = setting.net.engine(), setting.net.new_cache(1)
        sequence = engine.sequence(setting.where[one], setting.mask[one])
        engine.hidden(setting.ids[one], sequence.span(0, setting.n), cache, NOTHING[one])
        choose(engine, sequence, cache, [(setting.n, setting.n + setting.length)])
        states = engine.hidden(setting.suffix[one], sequence.span(setting.n, setting.n + setting.length), cache)
        assert engine.said
        torch.testing.assert_close(states, setting.reference()[one], rtol=1e-3, atol=1e-3)
