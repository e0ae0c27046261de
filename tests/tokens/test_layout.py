"""Ids and sequences: the published numbers to the letter, and what a layout refuses."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from udvla_ros.errors import BundleError, TokenError
from udvla_ros.tokens.layout import Layout, Modality, View, Vocabulary, emu3_header

PUBLISHED = Vocabulary.published()
# The Qwen vocabulary's ids of "1*25*25" and "1*10*10": digits are 15 + d, the asterisk is 9.
STATIC_HEADER = (16, 9, 17, 20, 9, 17, 20)
WRIST_HEADER = (16, 9, 16, 15, 9, 16, 15)
CALVIN = Layout(
    PUBLISHED,
    (View("static", 200, 200, 25, 25, STATIC_HEADER), View("wrist", 80, 80, 10, 10, WRIST_HEADER)),
    text_slots=30,
    action_slots=69,
)
SMALL = Layout(Vocabulary.compact(10, 8, 6), (View("front", 8, 12, 2, 3), View("wrist", 8, 8, 2, 2)), 5, 6)


def small_codes(batch: int) -> dict[str, np.ndarray]:
    return {"front": np.arange(6 * batch).reshape(batch, 6) % 8, "wrist": np.full((batch, 2, 2), 7)}


# -- the published vocabulary ------------------------------------------------------------------------


def test_published_ids():
    assert PUBLISHED.size == 184_622
    assert PUBLISHED.markers == {
        "pad": 151643, "boa": 151844, "eoa": 151845, "eol": 151846, "eof": 151847, "mask": 151848,
        "bos": 151849, "eos": 151850, "img": 151851, "boi": 151852, "eoi": 151853,
    }  # fmt: skip
    assert PUBLISHED.visual_ids([0, 32767]).tolist() == [151854, 184621]
    assert PUBLISHED.action_ids([0, 1, 1023]).tolist() == [151642, 151641, 151642 - 1023]


def test_published_image_block_is_framed_as_in_emu3():
    block = CALVIN.image_block(CALVIN.views[0], np.arange(625))
    assert block[:10].tolist() == [151852, 16, 9, 17, 20, 9, 17, 20, 151851, 151854]
    assert block[-3:].tolist() == [151854 + 624, 151847, 151853]
    assert len(block) == 636


def test_calvin_block_lengths():
    assert [view.length for view in CALVIN.views] == [636, 111]
    assert CALVIN.image_tokens == 747
    assert CALVIN.suffix_length == 747 + 70 == 817
    assert CALVIN.prefix_length == 30 + 747
    assert len(CALVIN.template.visual_slots) == 725
    assert CALVIN.template.action_start == 747


def test_emu3_header_asks_for_the_published_text():
    asked = []
    assert emu3_header(25, 25, lambda text: asked.append(text) or [1, 2]) == (1, 2)
    assert asked == ["1*25*25"]


def test_header_ids_follow_the_published_tokeniser_digit_by_digit():
    def encode(text: str) -> list[int]:
        return [9 if c == "*" else 15 + int(c) for c in text]

    assert emu3_header(25, 25, encode) == STATIC_HEADER
    assert emu3_header(10, 10, encode) == WRIST_HEADER


@given(st.lists(st.integers(0, 1023), max_size=70))
def test_action_ids_come_back(codes):
    ids = PUBLISHED.action_ids(codes)
    assert PUBLISHED.action_codes(ids).tolist() == codes
    assert all(151642 - 1023 <= i <= 151642 for i in ids)


@pytest.mark.parametrize("code", [-1, 1024])
def test_action_code_outside_is_refused(code):
    with pytest.raises(TokenError, match=r"action code outside 0\.\.1023"):
        PUBLISHED.action_ids([0, code])


@pytest.mark.parametrize("wrong", [151843, 151643, 151642 - 1024])
def test_id_that_is_no_action_is_refused(wrong):
    with pytest.raises(TokenError):
        PUBLISHED.action_codes([wrong])


def test_visual_id_outside_is_refused():
    with pytest.raises(TokenError):
        PUBLISHED.visual_codes([151853])
    with pytest.raises(TokenError):
        PUBLISHED.visual_ids([32768])
    assert PUBLISHED.visual_codes([184621]).tolist() == [32767]


# -- the compact vocabulary --------------------------------------------------------------------------


@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 50))
def test_compact_has_no_gap_and_no_overlap(text, visual, action):
    v = Vocabulary.compact(text, visual, action)
    ids = [
        *range(text),
        *v.markers.values(),
        *v.action_ids(range(action)).tolist(),
        *v.visual_ids(range(visual)).tolist(),
    ]
    assert sorted(ids) == list(range(v.size))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"action_first": 30}, "visual and action ids overlap"),
        ({"action_first": 5}, "overlap the 10 text ids"),
        ({"visual_first": 8}, "overlap"),
        ({"mask": 2}, "marker mask"),
        ({"mask": 23}, "marker mask"),
        ({"mask": 35}, "marker mask"),
        ({"mask": 99}, "marker mask"),
        ({"mask": 10}, "two markers"),
        ({"visual_size": 100}, "visual ids"),
        ({"action_size": 0}, "action ids"),
        ({"action_step": 2}, "action_step"),
    ],
)
def test_overlap_is_refused_by_name(change, named):
    good = Vocabulary.compact(10, 20, 6)  # text 0-9, markers 10-20, actions 21-26, visual 27-46
    with pytest.raises(BundleError, match=named):
        dataclasses.replace(good, **change)


# -- prefix ------------------------------------------------------------------------------------------


def test_prefix_pads_on_the_left_and_counts_positions_from_bos():
    v = SMALL.vocabulary
    prefix = SMALL.prefix([[3], [4, 5, 6, 7]], small_codes(2))
    assert prefix.ids[0, :5].tolist() == [v.pad, v.pad, v.pad, v.bos, 3]
    assert prefix.ids[1, :5].tolist() == [v.bos, 4, 5, 6, 7]
    assert prefix.positions[0].tolist() == [0, 0, 0, *range(SMALL.prefix_length - 3)]
    assert prefix.positions[1].tolist() == list(range(SMALL.prefix_length))
    assert prefix.modality[0].tolist() == [Modality.PAD] * 3 + [Modality.TEXT] * 2 + [Modality.CURRENT] * 14
    assert prefix.ids.shape == prefix.positions.shape == prefix.modality.shape == (2, 19)


def test_prefix_images_are_framed_in_the_layouts_order():
    v = SMALL.vocabulary
    codes = dict(reversed(small_codes(1).items()))
    images = SMALL.prefix([[3]], codes).ids[0, 5:]
    front = [v.boi, *(v.visual_first + np.arange(6)), v.eoi]
    wrist = [v.boi, *[v.visual_first + 7] * 4, v.eoi]
    assert images.tolist() == front + wrist


def test_text_that_does_not_fit_is_refused():
    with pytest.raises(TokenError, match="5 tokens and the bundle takes 4"):
        SMALL.prefix([[1, 2, 3, 4, 5]], small_codes(1))


def test_missing_camera_is_named():
    with pytest.raises(TokenError, match="camera wrist"):
        SMALL.prefix([[1]], {"front": np.zeros((1, 6), int)})


@pytest.mark.parametrize("shape", [(1, 5), (1, 3, 2), (1, 2, 2)])
def test_codes_of_another_raster_are_refused(shape):
    with pytest.raises(TokenError, match="camera front"):
        SMALL.prefix([[1]], {**small_codes(1), "front": np.zeros(shape, int)})


def test_code_outside_the_codebook_is_refused():
    with pytest.raises(TokenError, match="visual code outside"):
        SMALL.prefix([[1]], {**small_codes(1), "front": np.full((1, 6), 8)})


# -- suffix ------------------------------------------------------------------------------------------


def test_suffix_ends_with_eoa_and_then_mask():
    v = SMALL.vocabulary
    suffix = SMALL.suffix(small_codes(3), [[], [0, 5], [1, 2, 3, 4, 5]])
    first = v.action_first
    assert suffix[0, 14:].tolist() == [v.boa, v.eoa, *[v.mask] * 5]
    assert suffix[1, 14:].tolist() == [v.boa, first, first + 5, v.eoa, *[v.mask] * 3]
    assert suffix[2, 14:].tolist() == [v.boa, *range(first + 1, first + 6), v.eoa]


def test_published_suffix_counts_actions_downwards():
    codes = {"static": np.zeros((1, 625), int), "wrist": np.zeros((1, 10, 10), int)}
    tail = CALVIN.suffix(codes, [[0, 7]])[0, 747:752]
    assert tail.tolist() == [151844, 151642, 151635, 151845, 151848]


def test_suffix_of_video_without_actions_leaves_the_slots_masked():
    v = SMALL.vocabulary
    assert SMALL.suffix(small_codes(2), None)[:, 14:].tolist() == [[v.boa, *[v.mask] * 6]] * 2


def test_too_many_codes_are_refused():
    with pytest.raises(TokenError, match="6 action codes do not fit 5 slots"):
        SMALL.suffix(small_codes(1), [[0] * 6])


def test_template_has_markers_filled_in_and_mask_elsewhere():
    v, template = SMALL.vocabulary, SMALL.template
    expected = [v.boi, *[v.mask] * 6, v.eoi, v.boi, *[v.mask] * 4, v.eoi, v.boa, *[v.mask] * 6]
    assert template.ids.tolist() == expected
    assert template.visual_slots.tolist() == [1, 2, 3, 4, 5, 6, 9, 10, 11, 12]
    assert template.action_slots.tolist() == [15, 16, 17, 18, 19, 20]
    assert template.modality.tolist() == [Modality.FUTURE] * 14 + [Modality.ACTION] * 7


def test_published_template_knows_the_header():
    template = CALVIN.template
    assert template.ids[:9].tolist() == [151852, *STATIC_HEADER, 151851]
    assert (template.ids[template.visual_slots] == 151848).all()
    assert template.ids[636 + 109 : 636 + 111].tolist() == [151847, 151853]


def test_visual_slots_come_back_as_rasters():
    codes = small_codes(2)
    suffix = SMALL.suffix(codes, None)[:, SMALL.template.visual_slots]
    views = SMALL.split_views(SMALL.vocabulary.visual_codes(suffix))
    assert views["front"].tolist() == codes["front"].reshape(2, 2, 3).tolist()
    assert views["wrist"].tolist() == codes["wrist"].tolist()


# -- storage -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [CALVIN, SMALL, tiny.layout()])
def test_layout_comes_back_from_json(layout):
    assert Layout.from_dict(json.loads(json.dumps(layout.to_dict()))) == layout


@pytest.mark.parametrize("key", ["vocabulary", "views", "text_slots", "action_slots"])
def test_missing_key_is_named(key):
    values = SMALL.to_dict()
    del values[key]
    with pytest.raises(BundleError, match=key):
        Layout.from_dict(values)


def test_unknown_vocabulary_key_is_named():
    values = SMALL.to_dict()
    values["vocabulary"]["colour"] = 3
    with pytest.raises(BundleError, match="colour"):
        Layout.from_dict(values)


@pytest.mark.parametrize("change", [{"views": ()}, {"text_slots": 1}, {"action_slots": 1}])
def test_layout_without_room_is_refused(change):
    with pytest.raises(BundleError):
        dataclasses.replace(SMALL, **change)
