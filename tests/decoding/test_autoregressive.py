"""Autoregressive: the tokens of a naive loop over full forwards, and what each forward runs."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import tiny
import torch

from udvla_ros.decoding.autoregressive import Autoregressive
from udvla_ros.decoding.interface import DecodeOptions
from udvla_ros.decoding.registry import DECODERS, make_decoder
from udvla_ros.errors import ConfigError
from udvla_ros.tokens.layout import Layout, Modality, Prefix, View

VISUAL_SLOTS = 10
# Emu3's frame: a size header, IMG and EOF around the codes.
FRAMED = Layout(
    tiny.layout().vocabulary,
    tuple(View(v.name, v.height, v.width, v.rows, v.cols, (1, 2, 3)) for v in tiny.VIEWS),
    tiny.TEXT_SLOTS,
    tiny.ACTION_SLOTS,
)
WORDS = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10]]


@functools.lru_cache(maxsize=8)
def decoder(model: int = 0, layout: Layout | None = None) -> Autoregressive:
    return Autoregressive(tiny.backbone("causal", model, layout), tiny.fast().lattice(tiny.ACTION_SLOTS))


def naive(model: int, prefix: Prefix, layout: Layout, foresight: bool) -> tuple[list, list]:
    """One sample at a time, one full forward per token, the whole head."""
    net, lattice = decoder(model, layout).backbone, tiny.fast().lattice(tiny.ACTION_SLOTS)
    v, template = layout.vocabulary, layout.template
    rows = [*(v.action_first + code for code in range(v.action_size)), v.eoa]
    images, actions = [], []
    for row in range(len(prefix.ids)):
        n = len(prefix.ids[row])
        modality = np.concatenate([prefix.modality[row], template.modality])
        where = np.concatenate([prefix.positions[row], prefix.positions[row, -1] + 1 + np.arange(len(template.ids))])
        padding = modality == Modality.PAD
        sees = (padding[:, None] == padding[None]) & (padding[:, None] | (where[None] <= where[:, None]))
        if not foresight:
            sees &= (modality != Modality.FUTURE)[None] | (modality == Modality.FUTURE)[:, None]
        ids = np.concatenate([prefix.ids[row], template.ids])

        def logits(slot, ids=ids, where=where, sees=sees, n=n):
            with torch.inference_mode():
                everything = torch.as_tensor(sees)[None, None]
                hidden = net.hidden(torch.as_tensor(ids)[None], torch.as_tensor(where)[None], everything)
                return net.logits(hidden)[0, n + slot - 1].numpy()

        for slot in template.visual_slots if foresight else []:
            ids[n + slot] = v.visual_first + logits(slot)[v.visual_first : v.visual_first + v.visual_size].argmax()
        images.append([int(i) - v.visual_first if foresight else -1 for i in ids[n + template.visual_slots]])
        codes = []
        for number, slot in enumerate(template.action_slots):
            scores = logits(slot)[rows]
            fixed = [*codes, *[-1] * (tiny.ACTION_SLOTS - number)]
            best = int(np.where(lattice.allowed(fixed)[number], scores, -np.inf).argmax())
            if best == v.action_size:
                break
            codes.append(best)
            ids[n + slot] = rows[best]
        actions.append(codes)
    return images, actions


@pytest.mark.parametrize("foresight", ["full", "off"])
@pytest.mark.parametrize("layout", [tiny.layout(), FRAMED], ids=["compact", "framed"])
def test_tokens_are_those_of_a_naive_loop(layout, foresight):
    for model in range(2):
        prefix = tiny.prefix(WORDS, model, layout)
        options = DecodeOptions(foresight=foresight)
        decoded = decoder(model, layout)(prefix, options, 0)
        visual, actions = naive(model, prefix, layout, foresight == "full")
        assert decoded.visual.tolist() == visual
        assert decoded.actions == actions
        assert decoded.converged is None


def test_cache_and_batch_change_no_token():
    for model in range(4):
        both = tiny.prefix(WORDS, model)
        cached, full = (decoder(model)(both, DecodeOptions(use_cache=cache), 0) for cache in (True, False))
        assert (cached.visual.tolist(), cached.actions) == (full.visual.tolist(), full.actions)
        assert not full.prefilled
        for row in range(len(WORDS)):
            one = slice(row, row + 1)
            alone = Prefix(both.ids[one], both.positions[one], both.modality[one])
            single = decoder(model)(alone, DecodeOptions(), 0)
            assert single.visual.tolist() == cached.visual[one].tolist()
            assert single.actions == cached.actions[one]


def test_one_forward_per_token_and_none_for_markers():
    decoded = decoder()(tiny.prefix([[1, 2]]), DecodeOptions(), 0)
    actions = len(decoded.actions[0])
    # BOI, five codes more, [code EOI BOI], three codes more, [code EOI BOA], then the action's codes.
    assert [s.forward_tokens for s in decoded.steps] == [1] * 6 + [3] + [1] * 3 + [3] + [1] * actions
    assert decoded.forwards == 1 + VISUAL_SLOTS + actions + 1
    framed = decoder(0, FRAMED)(tiny.prefix([[1, 2]], 0, FRAMED), DecodeOptions(), 0)
    expected = [5, *[1] * 5, 8, *[1] * 3, 4, *[1] * len(framed.actions[0])]
    assert [s.forward_tokens for s in framed.steps] == expected
    blind = decoder()(tiny.prefix([[1, 2]]), DecodeOptions(foresight="off"), 0)
    assert [s.forward_tokens for s in blind.steps] == [1] * (len(blind.actions[0]) + 1)


@pytest.mark.parametrize("foresight", ["full", "off"])
def test_statistics_count_every_token_of_a_batch(foresight):
    decoded = decoder(1)(tiny.prefix(WORDS), DecodeOptions(foresight=foresight), 0)
    images = VISUAL_SLOTS * len(WORDS) if foresight == "full" else 0
    assert sum(s.visual_committed for s in decoded.steps) == images
    assert sum(s.action_committed for s in decoded.steps) == sum(len(codes) + 1 for codes in decoded.actions)
    assert all(0 <= s.visual_confidence <= 1 and 0 <= s.action_confidence <= 1 for s in decoded.steps)
    assert max(len(codes) for codes in decoded.actions) + 1 == sum(s.action_committed > 0 for s in decoded.steps)


def test_every_well_formed_chunk_decodes():
    for model in range(6):
        decoded = decoder(model)(tiny.prefix(WORDS, model), DecodeOptions(temperature=1.0), model)
        for codes in decoded.actions:
            assert tiny.fast().decode(codes).shape == (tiny.CHUNK, tiny.DIMENSIONS)


def test_seed_decides_and_another_one_differs():
    prefix, warm = tiny.prefix(WORDS), DecodeOptions(temperature=1.0)
    first, again, other = (decoder()(prefix, warm, seed) for seed in (1, 1, 2))
    assert (first.visual.tolist(), first.actions) == (again.visual.tolist(), again.actions)
    assert first.visual.tolist() != other.visual.tolist()
    assert first.actions != other.actions


def test_warm_codes_follow_the_model():
    """The first action code of 512 samples is spread as the model's probabilities of what may come are."""
    one = tiny.backbone("causal", 3, initializer_range=0.15)  # a mild model: no code has it all
    prefix = tiny.prefix([[1, 2, 3]])
    many = Prefix(*(np.repeat(part, 512, 0) for part in (prefix.ids, prefix.positions, prefix.modality)))
    options = DecodeOptions(foresight="off", temperature=1.0)
    seen = []
    original = one.action_logits
    one.action_logits = lambda *states: seen.append(original(*states)) or seen[-1]
    decoded = Autoregressive(one, tiny.fast().lattice(tiny.ACTION_SLOTS))(many, options, 0)
    allowed = tiny.fast().lattice(tiny.ACTION_SLOTS).following(0)
    wanted = 512 * seen[0][0, 0].masked_fill(~torch.as_tensor(allowed), -torch.inf).softmax(-1).numpy()
    firsts = [codes[0] if codes else tiny.layout().vocabulary.action_size for codes in decoded.actions]
    counted = np.bincount(firsts, minlength=len(wanted))
    assert (wanted > 1).sum() > 10
    assert ((counted - wanted) ** 2 / np.maximum(wanted, 1)).sum() < 2.5 * len(wanted)


@pytest.mark.parametrize("name", ["autoregressive", "jacobi"])
@pytest.mark.parametrize("kind", ["hybrid", "merged", "bidirectional"])
def test_another_attention_is_refused_by_name(name, kind):
    with pytest.raises(ConfigError, match=f"'{name}' needs attention 'causal' and the bundle has '{kind}'") as error:
        make_decoder(name, tiny.bundle(kind))
    assert "\n" not in str(error.value)


def test_every_registered_decoder_serves_a_causal_bundle():
    bundle = tiny.bundle("causal")
    for name in DECODERS:
        decoded = make_decoder(name, bundle)(tiny.prefix([[1]]), DecodeOptions(decoder=name, steps=3), 0)
        assert decoded.visual.shape == (1, VISUAL_SLOTS)
        assert tiny.fast().decode(decoded.actions[0]).shape == (tiny.CHUNK, tiny.DIMENSIONS)
    with pytest.raises(ConfigError, match="unknown decoder 'greedy'; known: jd3p"):
        make_decoder("greedy", bundle)


def test_a_sketch_is_refused():
    with pytest.raises(ConfigError, match="'autoregressive' cannot sketch"):
        decoder()(tiny.prefix([[1]]), DecodeOptions(foresight="sketch"), 0)
