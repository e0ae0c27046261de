"""Independent: images alone first, then the action on final images; both as a naive loop has them."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import tiny
import torch

from udvla_ros.decoding.base import TokenDecoder
from udvla_ros.decoding.independent import Independent
from udvla_ros.decoding.interface import Decoded, DecodeOptions
from udvla_ros.decoding.jd3p import JD3P
from udvla_ros.tokens.layout import Modality, Prefix

EXACT = ("hybrid", "causal")
EVERY = ("hybrid", "causal", "merged", "bidirectional")
IMAGES, ACTIONS, VISUAL_SLOTS = 14, 15, 10
WORDS = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10]]


@functools.lru_cache(maxsize=16)
def decoder(kind: str = "hybrid", model: int = 0, which: type[TokenDecoder] = Independent) -> TokenDecoder:
    return which(tiny.backbone(kind, model), tiny.fast().lattice(tiny.ACTION_SLOTS))


def decode(options: DecodeOptions, kind="hybrid", model=0, seed=0, which=Independent) -> Decoded:
    return decoder(kind, model, which)(tiny.prefix(WORDS, model), options, seed)


def same(a: Decoded, b: Decoded) -> None:
    assert a.visual.tolist() == b.visual.tolist()
    assert a.actions == b.actions


def share(step: int, steps: int) -> float:
    return math.cos(math.pi / 2 * (step + 1) / steps) if step + 1 < steps else 0.0


def naive(kind: str, model: int, prefix: Prefix, steps: int, action_steps: int) -> tuple[list, list]:
    """Greedy, one sample at a time, full forwards: a sequence without an action, then one with it."""
    net, layout = decoder(kind, model).backbone, tiny.layout()
    v, template, lattice = layout.vocabulary, layout.template, tiny.fast().lattice(tiny.ACTION_SLOTS)
    rows = [*(v.action_first + code for code in range(v.action_size)), v.eoa]
    images, actions = [], []
    for row in range(len(prefix.ids)):
        n = len(prefix.ids[row])
        modality = np.concatenate([prefix.modality[row], template.modality]).tolist()
        where = [*prefix.positions[row].tolist(), *(int(prefix.positions[row][-1]) + 1 + i for i in range(29))]
        ids = np.concatenate([prefix.ids[row], template.ids])

        def logits(end, ids=ids, where=where, modality=modality):
            sees = [
                [tiny.sees(kind, modality[i], modality[j], where[j] <= where[i]) for j in range(end)]
                for i in range(end)
            ]
            with torch.inference_mode():
                mask = torch.tensor(sees)[None, None]
                hidden = net.hidden(torch.as_tensor(ids[:end])[None], torch.tensor([where[:end]]), mask)
                return net.logits(hidden)[0].double()

        for step in range(steps):
            scores, found = logits(n + IMAGES), []
            for slot in template.visual_slots:
                if ids[n + slot] == v.mask:
                    p = scores[n + slot - 1, v.visual_first : v.visual_first + v.visual_size].softmax(0)
                    found.append((-float(p.max()), int(slot), int(p.argmax())))
            for _, slot, code in sorted(found)[: max(0, len(found) - int(share(step, steps) * VISUAL_SLOTS))]:
                ids[n + slot] = v.visual_first + code
        committed: dict[int, int] = {}
        for step in range(action_steps):
            scores = logits(len(ids))
            table = np.stack([scores[n + s - 1, rows].log_softmax(0).numpy() for s in template.action_slots])
            best = [*lattice.best(table, [committed.get(i, -1) for i in range(tiny.ACTION_SLOTS)]), v.action_size]
            found = sorted((-table[i, code], i) for i, code in enumerate(best) if i not in committed)
            for _, i in found[: max(0, len(found) - int(share(step, action_steps) * len(best)))]:
                committed[i] = best[i]
                ids[n + template.action_slots[i]] = rows[best[i]]
        images.append([int(i) - v.visual_first for i in ids[n + template.visual_slots]])
        actions.append([committed[i] for i in sorted(committed)][:-1])
    return images, actions


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize(("steps", "action_steps"), [(4, 4), (3, 2), (1, 1)])
def test_tokens_are_those_of_a_naive_loop(kind, steps, action_steps):
    for model in range(2):
        visual, actions = naive(kind, model, tiny.prefix(WORDS, model), steps, action_steps)
        decoded = decode(DecodeOptions(steps=steps, action_steps=action_steps), kind, model)
        assert decoded.visual.tolist() == visual
        assert decoded.actions == actions


@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.parametrize("foresight", ["full", "sketch", "off"])
def test_cache_changes_no_token(kind, foresight):
    for model in range(4):
        cached, full = (
            DecodeOptions(steps=4, action_steps=3, foresight=foresight, temperature=float(model % 2), use_cache=cache)
            for cache in (True, False)
        )
        same(decode(cached, kind, model), decode(full, kind, model))


def test_images_under_hybrid_are_those_of_joint_denoising():
    """They never see the action, so its slots make no difference to them; to the action the images do."""
    differ = 0
    for model in range(6):
        alone, joint = (decode(DecodeOptions(steps=5), model=model, which=which) for which in (Independent, JD3P))
        assert alone.visual.tolist() == joint.visual.tolist()
        differ += alone.actions != joint.actions
    assert differ


def test_images_run_alone_and_once_more_with_the_first_action_step():
    decoded = decode(DecodeOptions(steps=3, action_steps=4))
    assert [s.forward_tokens for s in decoded.steps] == [IMAGES] * 3 + [IMAGES + ACTIONS] + [ACTIONS] * 3
    assert [s.visual_committed > 0 for s in decoded.steps] == [True] * 3 + [False] * 4
    assert [s.action_committed > 0 for s in decoded.steps] == [False] * 3 + [True] * 4
    prefix = tiny.layout().prefix_length
    merged = decode(DecodeOptions(steps=2, action_steps=1), "merged")
    assert [s.forward_tokens for s in merged.steps] == [prefix + IMAGES] * 2 + [prefix + IMAGES + ACTIONS]


def test_action_steps_are_as_many_as_image_steps_unless_given():
    assert len(decode(DecodeOptions(steps=3)).steps) == 6


def test_without_foresight_there_is_only_the_action():
    for model in range(3):
        options = DecodeOptions(steps=3, foresight="off")
        alone, joint = (decode(options, model=model, which=which) for which in (Independent, JD3P))
        same(alone, joint)
        assert [s.forward_tokens for s in alone.steps] == [ACTIONS] * 3


def test_every_chunk_is_well_formed():
    template = tiny.layout().template
    assert (template.modality[IMAGES:] == Modality.ACTION).all()
    for model in range(4):
        decoded = decode(DecodeOptions(steps=3, temperature=1.0), model=model, seed=model)
        assert (decoded.visual >= 0).all()
        for codes in decoded.actions:
            assert tiny.fast().decode(codes).shape == (tiny.CHUNK, tiny.DIMENSIONS)
