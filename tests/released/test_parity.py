"""What a converted bundle computes is what the released model computes: spans, masks, logits (docs/benchmarks.md)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import released_files as files
import torch

from udvla_ros.decoding.interface import DecodeOptions
from udvla_ros.decoding.jd3p import JD3P
from udvla_ros.decoding.schedule import schedule_of
from udvla_ros.model.checkpoint import Bundle
from udvla_ros.policy import Policy
from udvla_ros.proving.bench.public_loop import PublicLoop
from udvla_ros.released.convert import convert
from udvla_ros.released.settings import SETTINGS
from udvla_ros.tokens.layout import Layout, View, Vocabulary


@pytest.fixture(scope="module")
def released(tmp_path_factory) -> files.Released:
    return files.write(tmp_path_factory.mktemp("released"))


@pytest.fixture(scope="module", params=["merged", "causal"])
def bundle(request, released, tmp_path_factory) -> Bundle:
    out = tmp_path_factory.mktemp("bundles") / request.param
    convert(released.request(out, attention=request.param))
    return Bundle.load(out)


def published_layout(data: str, text: int) -> Layout:
    setting = SETTINGS[data]
    header = {25: (16, 9, 17, 20, 9, 17, 20), 10: (16, 9, 16, 15, 9, 16, 15)}
    views = tuple(View(n, h, w, h // 8, w // 8, header[h // 8]) for n, (h, w) in setting.views.items())
    return Layout(Vocabulary.published(), views, text, setting.action_slots)


@pytest.mark.parametrize(("data", "text", "prefix", "suffix"), [
    ("calvin", 8, 755, 817), ("libero", 12, 759, 817), ("bridge", 7, 643, 708),
])  # fmt: skip
def test_spans_and_ids_are_the_published_ones(data, text, prefix, suffix):
    layout = published_layout(data, text)
    assert (layout.prefix_length, layout.suffix_length) == (prefix, suffix)
    codes = {view.name: np.arange(view.codes) for view in layout.views}
    whole = layout.prefix([list(range(100, 100 + text - 1))], {n: c[None] for n, c in codes.items()}).ids[0].tolist()
    assert whole[: text] == [151849, *range(100, 100 + text - 1)]
    assert whole[text : text + 9] == [151852, 16, 9, 17, 20, 9, 17, 20, 151851]
    assert whole[text + 9 : text + 634] == list(range(151854, 151854 + 625))
    assert whole[text + 634 : text + 636] == [151847, 151853]
    tail = layout.suffix({n: c[None] for n, c in codes.items()}, [[0, 5, 1023]])[0].tolist()
    start = suffix - 1 - layout.action_slots
    assert tail[start : start + 6] == [151844, 151642, 151637, 150619, 151845, 151848]
    assert layout.template.ids.tolist().count(151848) == suffix - 1 - 11 * len(layout.views)


def law_of_the_public_code(steps: int) -> list[int]:
    """817 slots, 812 of them open at first (BOI, EOI and BOA are given), one left over at the end."""
    unknown, counts = 817 - 5, []
    for step in range(1, steps + 1):
        left = max(1, min(unknown - 1, math.floor(817 * math.cos(math.pi / 2 * step / steps))))
        counts.append(unknown - left)
        unknown = left
    return counts


def test_a_converted_bundle_decodes_as_published_unless_told_otherwise(bundle):
    options = Policy(bundle).options()
    assert options == DecodeOptions(
        steps=72, sampler="published", schedule="public", temperature=1.0, masked_frames=True, drawn_behind=True
    )
    noise = [round(step.ranking_temperature, 4) for step in schedule_of(options, 8)]
    assert noise == [0.875, 0.6562, 0.4102, 0.2051, 0.0769, 0.0192, 0.0024, 0.0]


@pytest.mark.parametrize("steps", [3, 8])
def test_commit_counts_are_those_of_the_public_loop(bundle, steps):
    """Of our decoder and of the bench's baseline; what the public code leaves to the end goes with the last ones."""
    counts = law_of_the_public_code(steps)
    if steps == 8:
        assert counts == [11, 47, 75, 102, 124, 141, 153, 158]
    counts[-1] += 1
    policy, layout = Policy(bundle), bundle.config.layout
    options = policy.options(steps=steps)
    rng = np.random.default_rng(0)
    codes = {view.name: rng.integers(0, files.VISUAL, (1, view.codes)) for view in layout.views}
    prefix = layout.prefix([[5, 6]], codes)
    jd3p, loop = policy._decoder("jd3p"), PublicLoop(bundle)
    for decoder in (jd3p, loop):
        decoded = decoder(prefix, options, 3)
        assert [s.visual_committed + s.action_committed for s in decoded.steps] == counts
        if decoder is jd3p:
            assert (decoded.visual >= 0).all()
    assert bundle.fast.decode(decoded.actions[0]).shape == (10, 7)
    given = jd3p(prefix, policy.options(steps=steps, masked_frames=False, drawn_behind=False), 3)
    assert [s.visual_committed + s.action_committed for s in given.steps] != counts


def test_what_is_masked_is_committed_with_what_it_is_and_slots_behind_eoa_too(bundle, monkeypatch):
    """The sequence at the end: frames complete, no MASK left, EOA somewhere and other codes behind it."""
    policy, layout = Policy(bundle), bundle.config.layout
    v, template, last = layout.vocabulary, layout.template, {}
    original = JD3P.write

    def write(self, call):
        original(self, call)
        last["ids"] = call.suffix.ids.numpy()

    monkeypatch.setattr(JD3P, "write", write)
    rng = np.random.default_rng(1)
    codes = {view.name: rng.integers(0, files.VISUAL, (2, view.codes)) for view in layout.views}
    decoded = policy._decoder("jd3p")(layout.prefix([[5, 6], [7]], codes), policy.options(steps=6), 0)
    ids = last["ids"]
    assert len(template.frame_slots) == 9 * 2 and not (ids == v.mask).any()
    assert (ids[:, template.frame_slots] == template.ids[template.frame_slots]).all()
    for row, actions in zip(ids[:, template.action_slots], decoded.actions, strict=True):
        assert row[: len(actions)].tolist() == v.action_ids(actions).tolist()
        assert row[len(actions)] == v.eoa
        assert len(set(row[len(actions) + 1 :].tolist())) > 1


def seen_by_the_public_code(ids: list[int], text: int, v: Vocabulary) -> torch.Tensor:
    """Bool [L, L], in the words of docs/benchmarks.md: causal, but one block from the first BOI to EOA or the end."""
    length = len(ids)
    allowed = torch.ones(length, length).tril().bool()
    end = ids.index(v.eoa) + 1 if v.eoa in ids else length
    allowed[text:end, text:end] = True
    return allowed


@pytest.mark.parametrize("ends", [True, False])
def test_logits_are_those_of_the_released_model(released, bundle, ends):
    """With an EOA in the middle of the action and without one; text as long as its slots, so that nothing is padded."""
    layout, model = bundle.config.layout, bundle.backbone
    v, rng = layout.vocabulary, np.random.default_rng(0)

    def codes():
        return {view.name: rng.integers(0, v.visual_size, (1, view.codes)) for view in layout.views}

    prefix = layout.prefix([rng.integers(0, 300, layout.text_slots - 1).tolist()], codes())
    suffix = layout.suffix(codes(), [rng.integers(0, v.action_size, 20).tolist()])
    hidden = rng.random(suffix.shape) < 0.3
    hidden[:, layout.template.action_start :] = False
    suffix[hidden] = v.mask
    if not ends:
        suffix[suffix == v.eoa] = v.mask
    ids = torch.as_tensor(np.concatenate([prefix.ids, suffix], 1))
    mask, positions = model.sequence_mask(torch.as_tensor(prefix.modality), torch.as_tensor(prefix.positions))
    with torch.inference_mode():
        ours = model.hidden(ids, positions, mask)
        ours = torch.cat([model.visual_logits(ours), model.action_logits(ours)], -1)
        if bundle.config.attention == "merged":
            allowed = seen_by_the_public_code(ids[0].tolist(), layout.text_slots, v)[None, None]
        else:
            allowed = torch.ones(ids.shape[1], ids.shape[1]).tril().bool()[None, None]
        theirs = released.model(input_ids=ids, attention_mask=allowed, use_cache=False).logits
    rows = torch.cat([torch.arange(v.visual_first, v.visual_first + v.visual_size), model.action_rows])
    theirs = theirs[..., rows]
    assert theirs.std() > 0.5
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=0)
