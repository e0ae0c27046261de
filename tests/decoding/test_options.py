"""What each way to save forwards promises: exact ones change no token, approximate ones are bounded."""

from __future__ import annotations

import functools

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from udvla_ros.decoding.independent import Independent
from udvla_ros.decoding.interface import Decoded, DecodeOptions
from udvla_ros.decoding.jd3p import JD3P
from udvla_ros.errors import ConfigError

VISUAL_SLOTS, SUFFIX, ACTIONS = 10, 29, 15
models = st.integers(0, 5)
kinds = st.sampled_from(["hybrid", "causal", "merged"])
plain = st.builds(
    dict,
    steps=st.integers(1, 6),
    action_steps=st.one_of(st.none(), st.integers(1, 6)),
    temperature=st.sampled_from([0.0, 1.0]),
    sampler=st.sampled_from(["annealed", "exact"]),
    confidence_threshold=st.one_of(st.none(), st.floats(0.05, 1.0)),
    schedule=st.sampled_from(["public", "paper"]),
    foresight=st.sampled_from(["full", "sketch", "off"]),
)


@functools.lru_cache(maxsize=32)
def decoder(kind: str, model: int, which: type = JD3P) -> JD3P | Independent:
    return which(tiny.backbone(kind, model), tiny.fast().lattice(tiny.ACTION_SLOTS))


def decode(kind="hybrid", model=0, which=JD3P, seed=3, **options) -> Decoded:
    prefix = tiny.prefix([[1, 2, 3], [4]], model)
    return decoder(kind, model, which)(prefix, DecodeOptions(**options), seed)


def same(a: Decoded, b: Decoded) -> None:
    assert a.visual.tolist() == b.visual.tolist()
    assert a.actions == b.actions


def well_formed(decoded: Decoded) -> None:
    for codes in decoded.actions:
        assert tiny.fast().decode(codes).shape == (tiny.CHUNK, tiny.DIMENSIONS)


# -- exact -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["hybrid", "causal"])
def test_text_kept_from_the_last_call_changes_no_token(kind):
    """One decoder through scenes and sentences; each answer is that of a decoder that never saw another."""
    one = JD3P(tiny.backbone(kind), tiny.fast().lattice(tiny.ACTION_SLOTS))
    run = []
    original = one.backbone.states
    one.backbone.states = lambda ids, *rest: run.append(ids.shape[1]) or original(ids, *rest)
    options = DecodeOptions(steps=3)
    words = [[[1, 2, 3]], [[1, 2, 3]], [[4]], [[4]], [[4]], [[1, 2, 3]], [[2, 1, 3]]]
    prefills = []
    for scene, text in enumerate(words):
        prefix = tiny.prefix(text, scene)
        run.clear()
        found = one(prefix, options, 0)
        prefills.append(run[0])
        same(found, JD3P(tiny.backbone(kind), tiny.fast().lattice(tiny.ACTION_SLOTS))(prefix, options, 0))
    images = tiny.layout().image_tokens
    whole = images + tiny.TEXT_SLOTS
    assert prefills == [whole, images, whole, images, images, whole, whole]


def test_text_is_not_kept_when_the_weights_change():
    one = JD3P(tiny.backbone("hybrid", 0), tiny.fast().lattice(tiny.ACTION_SLOTS))
    prefix, options = tiny.prefix([[1, 2, 3]], 0), DecodeOptions(steps=3)
    one(prefix, options, 0)
    one.backbone.decoder.load_state_dict(tiny.backbone("hybrid", 1).decoder.state_dict())
    same(one(prefix, options, 0), decoder("hybrid", 1)(prefix, options, 0))


def test_text_is_not_kept_when_a_prefill_failed(monkeypatch):
    one = JD3P(tiny.backbone("hybrid", 0), tiny.fast().lattice(tiny.ACTION_SLOTS))
    options = DecodeOptions(steps=2)
    one(tiny.prefix([[1, 2, 3]]), options, 0)
    with monkeypatch.context() as patch:
        patch.setattr("udvla_ros.model.decoder.rotate", lambda *_: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(MemoryError):
            one(tiny.prefix([[4, 5]]), options, 0)
    prefix = tiny.prefix([[4, 5]], 2)
    same(one(prefix, options, 0), decoder("hybrid", 0)(prefix, options, 0))


@settings(max_examples=40, deadline=None)
@given(kinds, models, plain)
def test_stopping_when_ready_gives_the_same_action(kind, model, options):
    whole = decode(kind, model, **options)
    short = decode(kind, model, **options, stop_when_ready=True)
    assert short.actions == whole.actions
    assert short.forwards <= whole.forwards
    known = short.visual >= 0
    assert (short.visual[known] == whole.visual[known]).all()


def test_stopping_when_ready_saves_the_image_steps_that_are_left():
    options = {"steps": 12}  # a short action is complete before the schedule's end
    saved = [
        len(decode(model=m, **options).steps) - len(decode(model=m, **options, stop_when_ready=True).steps)
        for m in range(6)
    ]
    assert max(saved) > 0
    assert min(saved) >= 0


# -- remask ------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(kinds, models, plain, st.floats(0.05, 0.95))
def test_remasked_chunks_are_complete_and_end_in_time(kind, model, options, share):
    found = decode(kind, model, **options, remask=share)
    well_formed(found)
    exact = decode(kind, model, **options)
    if options["foresight"] == "full":
        assert (found.visual >= 0).all()
    limit = max(options["steps"], options["action_steps"] or options["steps"])
    assert len(found.steps) <= limit
    assert sum(s.visual_committed for s in found.steps) >= sum(s.visual_committed for s in exact.steps)


def test_share_of_zero_is_none_and_a_share_commits_some_twice():
    for model in range(4):
        same(decode(model=model, steps=5, remask=0.0), decode(model=model, steps=5))
    found = decode(steps=5, remask=0.5)
    assert sum(s.visual_committed for s in found.steps) > 2 * VISUAL_SLOTS
    assert decode(steps=1, remask=0.5).visual.tolist() == decode(steps=1).visual.tolist()


def test_remasking_revises_tokens():
    differing = sum(
        decode(model=m, steps=6, remask=0.4).visual.tolist() != decode(model=m, steps=6).visual.tolist()
        for m in range(6)
    )
    assert differing > 0


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"remask": 1.0}, "remask is 1.0"), ({"remask": -0.1}, "remask"), ({"remask": float("nan")}, "remask is nan")],
)
def test_wrong_options_are_named(wrong, named):
    with pytest.raises(ConfigError, match=named):
        DecodeOptions(**wrong)
