"""JD3P: the same tokens as a naive loop, with and without a cache, and rules no seed may break."""

from __future__ import annotations

import functools
import math
from itertools import pairwise

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from udvla_ros.decoding.interface import Decoded, DecodeOptions
from udvla_ros.decoding.jd3p import JD3P
from udvla_ros.decoding.registry import DECODERS
from udvla_ros.decoding.schedule import masked_shares
from udvla_ros.errors import ConfigError
from udvla_ros.tokens.layout import Modality, Prefix

EXACT = ("hybrid", "causal")
EVERY = ("hybrid", "causal", "merged", "bidirectional")
VISUAL_SLOTS = 10


@functools.lru_cache(maxsize=32)
def decoder(kind: str = "hybrid", seed: int = 0) -> JD3P:
    return JD3P(tiny.backbone(kind, seed), tiny.fast().lattice(tiny.ACTION_SLOTS))


@functools.lru_cache(maxsize=32)
def make(name: str, kind: str, seed: int) -> JD3P:
    return DECODERS[name](tiny.backbone(kind, seed), tiny.fast().lattice(tiny.ACTION_SLOTS))


def decode(options: DecodeOptions, kind="hybrid", model=0, prefix=None, seed=0) -> Decoded:
    prefix = prefix or tiny.prefix([[1, 2, 3]], model)
    return decoder(kind, model)(prefix, options, seed)


texts = st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=tiny.TEXT_SLOTS - 1), min_size=1, max_size=3)
options = st.builds(
    DecodeOptions,
    steps=st.integers(1, 6),
    action_steps=st.one_of(st.none(), st.integers(1, 8)),
    foresight=st.sampled_from(["full", "full", "off"]),
    schedule=st.sampled_from(["public", "paper"]),
    sampler=st.sampled_from(["annealed", "exact"]),
    temperature=st.sampled_from([0.0, 0.0, 1.0]),
    confidence_threshold=st.one_of(st.none(), st.floats(0.01, 1.0)),
)
models = st.integers(0, 7)


def same(a: Decoded, b: Decoded) -> None:
    assert a.visual.tolist() == b.visual.tolist()
    assert a.actions == b.actions


# -- what is decoded ---------------------------------------------------------------------------------


def naive(kind: str, model: int, prefix: Prefix, steps: int, action_steps: int) -> tuple[list, list]:
    """Greedy JD3P with the public schedule, one sample at a time: full forwards, the whole head."""
    net, layout = tiny.backbone(kind, model), tiny.layout()
    v, template, lattice = layout.vocabulary, layout.template, tiny.fast().lattice(tiny.ACTION_SLOTS)
    all_visual, all_actions = [], []
    for row in range(len(prefix.ids)):
        n = len(prefix.ids[row])
        modality = [*prefix.modality[row].tolist(), *template.modality.tolist()]
        first = int(prefix.positions[row][-1]) + 1
        where = [*prefix.positions[row].tolist(), *range(first, first + len(template.ids))]
        mask = torch.tensor(
            [
                [tiny.sees(kind, q, k, where[j] <= where[i]) for j, k in enumerate(modality)]
                for i, q in enumerate(modality)
            ]
        )[None, None]
        ids = np.concatenate([prefix.ids[row], template.ids])
        committed: dict[int, int] = {}  # action slot -> code, EOA is action_size
        total = max(steps, action_steps)
        for step in range(total):
            with torch.inference_mode():
                hidden = net.hidden(torch.as_tensor(ids)[None], torch.tensor([where]), mask)
                logits = net.logits(hidden)[0].double()
            found = []
            for slot in template.visual_slots:
                if ids[n + slot] == v.mask:
                    p = logits[n + slot - 1, v.visual_first : v.visual_first + v.visual_size].softmax(0)
                    found.append((-float(p.max()), int(slot), int(p.argmax())))
            due = step - (total - action_steps)
            if due >= 0:
                rows = [*(v.action_first + c for c in range(v.action_size)), v.eoa]
                table = np.stack([logits[n + s - 1, rows].log_softmax(0).numpy() for s in template.action_slots])
                fixed = np.full(tiny.ACTION_SLOTS, -1)
                for index, code in committed.items():
                    fixed[index] = code
                best = [*lattice.best(table, fixed), v.action_size]
                open_slots = sorted((-table[i, best[i]], i) for i in range(len(best)) if i not in committed)
                share = math.cos(math.pi / 2 * (due + 1) / action_steps) if due + 1 < action_steps else 0
                for _, index in open_slots[: max(0, len(open_slots) - int(share * len(best)))]:
                    committed[index] = best[index]
                    ids[n + template.action_slots[index]] = rows[best[index]]
            share = math.cos(math.pi / 2 * (step + 1) / steps) if step + 1 < steps else 0
            for _, slot, code in sorted(found)[: max(0, len(found) - int(share * VISUAL_SLOTS))]:
                ids[n + slot] = v.visual_first + code
        all_visual.append([int(i) - v.visual_first for i in ids[n + template.visual_slots]])
        codes = [committed[i] for i in sorted(committed)]
        all_actions.append(codes[: codes.index(v.action_size)])
    return all_visual, all_actions


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize(("steps", "action_steps"), [(5, 5), (4, 2), (2, 4), (1, 1)])
def test_tokens_are_those_of_a_naive_loop(kind, steps, action_steps):
    prefix = tiny.prefix([[1, 2, 3], [4], [5, 6, 7, 8, 9, 10]], 3)
    for model in range(3):
        decoded = decode(DecodeOptions(steps=steps, action_steps=action_steps), kind, model, prefix)
        visual, actions = naive(kind, model, prefix, steps, action_steps)
        assert decoded.visual.tolist() == visual
        assert decoded.actions == actions


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(EXACT), models, texts, options, st.integers(0, 3))
def test_cache_changes_no_token(kind, model, words, opts, seed):
    prefix = tiny.prefix(words, seed)
    without = DecodeOptions(**{**vars(opts), "use_cache": False})
    same(decode(opts, kind, model, prefix, seed), decode(without, kind, model, prefix, seed))


@pytest.mark.parametrize("kind", ["merged", "bidirectional"])
def test_inexact_kinds_never_use_the_cache(kind):
    cached = decode(DecodeOptions(steps=3), kind)
    full = decode(DecodeOptions(steps=3, use_cache=False), kind)
    same(cached, full)
    assert [s.forward_tokens for s in cached.steps] == [s.forward_tokens for s in full.steps]


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(EVERY), models, options)
def test_batch_of_two_equals_two_singles(kind, model, opts):
    opts = DecodeOptions(**{**vars(opts), "temperature": 0.0})
    both = tiny.prefix([[1, 2, 3], [4, 5, 6, 7, 8]], model)
    decoded = decode(opts, kind, model, both)
    for row in range(2):
        one = slice(row, row + 1)
        single = decode(opts, kind, model, Prefix(both.ids[one], both.positions[one], both.modality[one]))
        assert single.visual.tolist() == decoded.visual[one].tolist()
        assert single.actions == decoded.actions[one]


def test_one_decoder_serves_batches_of_any_size_in_turn():
    one = JD3P(tiny.backbone(), tiny.fast().lattice(tiny.ACTION_SLOTS))
    small, large = tiny.prefix([[1]], 5), tiny.prefix([[2, 3], [4], [5]], 6)
    opts = DecodeOptions(steps=3)
    first = one(small, opts, 0)
    one(large, opts, 0)
    same(one(small, opts, 0), first)


# -- seeds -------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(models, options, st.integers(0, 1000))
def test_seed_and_options_decide_every_token(model, opts, seed):
    same(decode(opts, "hybrid", model, seed=seed), decode(opts, "hybrid", model, seed=seed))


def test_another_seed_gives_other_tokens_when_it_is_warm():
    warm = DecodeOptions(steps=4, temperature=2.0)
    first, second = decode(warm, seed=1), decode(warm, seed=2)
    assert first.visual.tolist() != second.visual.tolist()
    assert first.actions != second.actions


def test_greedy_ignores_the_seed():
    same(decode(DecodeOptions(steps=4), seed=1), decode(DecodeOptions(steps=4), seed=2))


# -- rules -------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(EVERY), models, texts, options, st.integers(0, 3))
def test_every_chunk_is_well_formed_and_every_image_complete(kind, model, words, opts, seed):
    decoded = decode(opts, kind, model, tiny.prefix(words, seed), seed)
    for codes in decoded.actions:
        assert tiny.fast().decode(codes).shape == (tiny.CHUNK, tiny.DIMENSIONS)
    if opts.foresight == "off":
        assert (decoded.visual == -1).all()
    else:
        assert ((decoded.visual >= 0) & (decoded.visual < tiny.VISUAL)).all()


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(EVERY), models, texts, options)
def test_committed_stays_and_markers_never_change(kind, model, words, opts):
    template, v = tiny.layout().template, tiny.layout().vocabulary
    fixed = np.ones(len(template.ids), bool)
    fixed[template.visual_slots] = fixed[template.action_slots] = False
    history = []

    class Watched(JD3P):
        def write(self, call):
            for _ in self.steps(call):
                parts = (call.suffix.ids, call.suffix.visual, call.suffix.action)
                history.append([part.numpy().copy() for part in parts])

    Watched(tiny.backbone(kind, model), tiny.fast().lattice(tiny.ACTION_SLOTS))(tiny.prefix(words, model), opts, 0)
    for ids, visual, action in history:
        assert (ids[:, fixed] == template.ids[fixed]).all()
        # The model's input says exactly what is committed.
        assert (ids[:, template.visual_slots] == np.where(visual < 0, v.mask, v.visual_first + visual)).all()
        as_ids = np.where(action == v.action_size, v.eoa, v.action_first + action)
        assert (ids[:, template.action_slots] == np.where(action < 0, v.mask, as_ids)).all()
        for row in action:
            ends = np.flatnonzero(row == v.action_size)
            assert len(ends) <= 1
            assert not len(ends) or (row[ends[0] + 1 :] == -1).all()
    for (_, *before), (_, *after) in pairwise(history):
        for a, b in zip(before, after, strict=True):
            assert (b[a != -1] == a[a != -1]).all()


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(EVERY), models, texts, options)
def test_statistics_add_up(kind, model, words, opts):
    decoded = decode(opts, kind, model, tiny.prefix(words, model))
    images = 0 if opts.foresight == "off" else VISUAL_SLOTS * len(words)
    assert sum(s.visual_committed for s in decoded.steps) == images
    assert sum(s.action_committed for s in decoded.steps) == sum(len(c) + 1 for c in decoded.actions)
    assert all(0 <= s.visual_confidence <= 1 + 1e-6 and 0 <= s.action_confidence <= 1 + 1e-6 for s in decoded.steps)
    assert set(decoded.timings_ms) == {"prefill", "denoise", "action_ready"}
    assert 0 < decoded.timings_ms["action_ready"] <= decoded.timings_ms["denoise"]
    longest = max(opts.steps, opts.action_steps or 0) if opts.foresight == "full" else opts.action_steps or opts.steps
    assert decoded.forwards <= longest + 1
    assert decoded.prefilled == (kind in EXACT)


# -- what a forward costs ----------------------------------------------------------------------------

SUFFIX = 29  # two image blocks of 8 and 6, BOA, 14 action slots
ACTIONS = 15


def tokens(opts: DecodeOptions, kind="hybrid") -> list[int]:
    return [s.forward_tokens for s in decode(opts, kind).steps]


@pytest.mark.parametrize("kind", EXACT)
def test_actions_are_run_only_when_they_are_due_and_alone_once_images_are_final(kind):
    assert tokens(DecodeOptions(steps=4), kind) == [SUFFIX] * 4
    # Actions in the last two of four steps: images alone before.
    assert tokens(DecodeOptions(steps=4, action_steps=2), kind) == [14, 14, SUFFIX, SUFFIX]
    # Images final after two of five: one more run puts them into the cache, then the action is alone.
    assert tokens(DecodeOptions(steps=2, action_steps=5), kind) == [SUFFIX] * 3 + [ACTIONS] * 2
    assert tokens(DecodeOptions(steps=3, foresight="off"), kind) == [ACTIONS] * 3


@pytest.mark.parametrize(("kind", "cache"), [("merged", True), ("hybrid", False)])
def test_without_a_cache_every_forward_runs_prefix_and_suffix(kind, cache):
    decoded = decode(DecodeOptions(steps=3, use_cache=cache), kind)
    whole = tiny.layout().prefix_length + SUFFIX
    assert [s.forward_tokens for s in decoded.steps] == [whole] * 3
    assert decoded.forwards == 3


def test_forwards_are_counted_by_the_model(monkeypatch):
    counted = []
    one = JD3P(tiny.backbone(), tiny.fast().lattice(tiny.ACTION_SLOTS))
    run = one.backbone.states
    monkeypatch.setattr(one.backbone, "states", lambda ids, *rest: counted.append(ids.shape[1]) or run(ids, *rest))
    for opts in (DecodeOptions(steps=3), DecodeOptions(steps=2, use_cache=False), DecodeOptions(foresight="off")):
        counted.clear()
        decoded = one(tiny.prefix([[1]]), opts, 0)
        assert decoded.forwards == len(counted)
        assert [s.forward_tokens for s in decoded.steps] == counted[int(decoded.prefilled) :]


def test_tiny_threshold_commits_everything_in_one_step():
    decoded = decode(DecodeOptions(steps=8, confidence_threshold=1e-9))
    assert len(decoded.steps) == 1
    assert decoded.forwards == 2
    assert decoded.steps[0].visual_committed == VISUAL_SLOTS


def test_threshold_of_one_changes_nothing():
    for model in range(4):
        with_it = decode(DecodeOptions(steps=5, confidence_threshold=1.0), model=model)
        same(with_it, decode(DecodeOptions(steps=5), model=model))


@settings(max_examples=20, deadline=None)
@given(models, st.integers(1, 6), st.sampled_from(["public", "paper"]))
def test_image_slots_are_committed_by_the_schedule(model, steps, schedule):
    decoded = decode(DecodeOptions(steps=steps, schedule=schedule), model=model)
    shares = masked_shares(schedule, steps)
    left, expected = VISUAL_SLOTS, []
    for share in shares:
        expected.append(max(0, left - int(share * VISUAL_SLOTS)))
        left -= expected[-1]
    assert [s.visual_committed for s in decoded.steps] == expected


# -- samplers and the entropy bound ------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(EVERY), models, st.integers(1, 6), st.sampled_from(["full", "off"]), st.booleans())
def test_published_ranks_both_modalities_together(kind, model, steps, foresight, cache):
    """Complete and well-formed in as many steps; each step's count over both is that of the released code."""
    opts = DecodeOptions(steps=steps, sampler="published", temperature=1.0, foresight=foresight, use_cache=cache)
    decoded = decode(opts, kind, model, seed=model)
    assert tiny.fast().decode(decoded.actions[0]).shape == (tiny.CHUNK, tiny.DIMENSIONS)
    assert (decoded.visual >= 0).all() == (foresight == "full")
    assert len(decoded.steps) <= steps
    if steps > 2 and foresight == "full":
        first = decoded.steps[0]
        # The length drawn in the first step is not told: between no code and all slots of the action.
        share, every = math.cos(math.pi / 2 / steps), range(SUFFIX - 12, SUFFIX + 1)
        counts = [max(1, slots - 5 - int(slots * share)) for slots in every]
        assert min(counts) <= first.visual_committed + first.action_committed <= max(counts)


def test_published_is_one_ranking_and_apart_are_two():
    differ = 0
    for model in range(6):
        together, apart = (decode(DecodeOptions(steps=4, sampler=s), model=model) for s in ("published", "exact"))
        counts = [[(s.visual_committed, s.action_committed) for s in d.steps] for d in (together, apart)]
        differ += counts[0] != counts[1]
    assert differ >= 3


@settings(max_examples=20, deadline=None)
@given(models, st.sampled_from(["jd3p", "independent"]), st.sampled_from(EXACT), st.integers(1, 8))
def test_entropy_bound_commits_by_sureness_within_the_cap(model, name, kind, cap):
    def bounded(nats: float) -> Decoded:
        options = DecodeOptions(steps=cap, entropy_bound=nats)
        return make(name, kind, model)(tiny.prefix([[1, 2], [3]], model), options, 0)

    loose, tight = bounded(1e6), bounded(1e-6)
    phases = 2 if name == "independent" else 1
    assert len(loose.steps) == phases  # everything at once
    assert len(tight.steps) <= cap * phases
    for decoded in (loose, tight):
        assert (decoded.visual >= 0).all()
        assert all(tiny.fast().decode(codes).shape == (tiny.CHUNK, tiny.DIMENSIONS) for codes in decoded.actions)
    if cap > 1:  # one sure slot a sample and step, as long as none is certain
        assert tight.steps[0].visual_committed == 2


# -- foresight off -----------------------------------------------------------------------------------


def test_without_foresight_no_future_slot_reaches_the_action():
    """Whatever stands in the future slots, the action's states stay as they are."""
    net = tiny.backbone()
    one = JD3P(net, tiny.fast().lattice(tiny.ACTION_SLOTS))
    opts = DecodeOptions(steps=3, foresight="off", use_cache=False)
    first = one(tiny.prefix([[1, 2]]), opts, 0)
    net.suffix_ids[net.visual_slots] = tiny.layout().vocabulary.visual_first + 3
    same(one(tiny.prefix([[1, 2]]), opts, 0), first)


@torch.inference_mode()
def test_without_foresight_the_action_is_what_its_training_block_sees():
    net, layout = tiny.backbone(), tiny.layout()
    prefix = tiny.prefix([[1, 2], [3, 4, 5]])
    ids, positions, modality = tiny.tensors(prefix)
    mask, where = net.sequence_mask(modality, positions, 1, 1)
    start = layout.template.action_start
    suffix = net.suffix_ids.expand(2, -1)
    packed = net.hidden(torch.cat([ids, suffix, suffix[:, start:]], 1), where, mask)[:, -ACTIONS:]
    seen = []
    original = net.states
    net.states = lambda *a: seen.append(original(*a)) or seen[-1]
    JD3P(net, tiny.fast().lattice(tiny.ACTION_SLOTS))(prefix, DecodeOptions(steps=1, foresight="off"), 0)
    # States that predict action codes: from BOA on, all but the last.
    torch.testing.assert_close(seen[-1], packed[:, :-1], rtol=1e-5, atol=1e-5)
    assert (layout.template.modality[start:] == Modality.ACTION).all()


# -- options -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"steps": 257}, "steps is 257"),
        ({"action_steps": 0}, "action_steps is 0"),
        ({"foresight": "half"}, "foresight is 'half'"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"confidence_threshold": 0.0}, "confidence_threshold"),
        ({"confidence_threshold": 1.5}, "confidence_threshold"),
        ({"schedule": "linear"}, "schedule is 'linear'"),
        ({"sampler": "greedy"}, "sampler is 'greedy'; known: exact, annealed, published"),
        ({"entropy_bound": 0.0}, "entropy_bound is 0.0"),
        ({"entropy_bound": 1.0, "confidence_threshold": 0.9}, "give one of them"),
        ({"samples": 0}, "samples is 0"),
        ({"sampler": "published", "action_steps": 3}, "knows no action_steps"),
        ({"sampler": "published", "decoder": "independent"}, "knows no decoder independent"),
        ({"sampler": "published", "remask": 0.1, "foresight": "sketch"}, "no foresight sketch, no remask"),
    ],
)
def test_wrong_options_are_named(wrong, named):
    with pytest.raises(ConfigError, match=named):
        decode(DecodeOptions(**wrong))
