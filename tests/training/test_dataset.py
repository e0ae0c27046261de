"""Token shards are one data set however they were cut."""

from __future__ import annotations

import numpy as np
import pytest
import tiny

from udvla_ros.errors import ConfigError
from udvla_ros.training.dataset import STEP_ARRAYS, TokenShard

STEPS = 6


def cut(whole: TokenShard, first: int, last: int) -> TokenShard:
    """Return episodes ``first`` to ``last`` as a shard by themselves, with frames, texts and episodes of their own."""
    steps = (whole.episode >= first) & (whole.episode < last)
    frames = slice(first * (STEPS + 1), last * (STEPS + 1))
    arrays = {name: getattr(whole, name)[steps] for name in STEP_ARRAYS}
    lines = sorted(set(arrays["text"].tolist()), reverse=True)
    arrays["text"] = np.array([lines.index(row) for row in arrays["text"]], np.int16)
    arrays["current"] = arrays["current"] - np.int32(frames.start)
    arrays["future"] = arrays["future"] - np.int32(frames.start)
    arrays["episode"] = arrays["episode"] - np.int32(first)
    views = {name: codes[frames] for name, codes in whole.views.items()}
    return TokenShard(views, **arrays, instructions=[whole.instructions[line] for line in lines])


def test_shards_put_together_are_the_whole():
    whole = tiny.sequences(episodes=8, steps=STEPS).shard
    ends = [(0, 3), (3, 4), (4, 8)]
    made = TokenShard.concatenate([cut(whole, *pair) for pair in ends])
    for name in set(STEP_ARRAYS) - {"text"}:
        np.testing.assert_array_equal(getattr(made, name), getattr(whole, name), err_msg=name)
        assert getattr(made, name).dtype == getattr(whole, name).dtype
    for name, codes in whole.views.items():
        np.testing.assert_array_equal(made.views[name], codes)
    assert [made.instructions[row] for row in made.text] == [whole.instructions[row] for row in whole.text]


def test_a_folder_of_shards_is_read_as_one(tmp_path):
    whole = tiny.sequences(episodes=4, steps=STEPS).shard
    cut(whole, 0, 2).save(tmp_path / "a.npz")
    cut(whole, 2, 4).save(tmp_path / "b.npz")
    np.testing.assert_array_equal(TokenShard.load(tmp_path).chunks, whole.chunks)


def test_a_prefix_that_is_told_nothing_is_the_layouts_own_without_text():
    data, layout = tiny.sequences(episodes=4, steps=STEPS), tiny.layout()
    steps, silent = np.array([3, 7]), np.array([True, False])
    made = data.prefixes(steps, silent)
    codes = data.shard.at(data.shard.current[steps])
    lines = [tiny.text().encode(data.shard.instructions[row]) for row in data.shard.text[steps]]
    expected = layout.prefix([[], lines[1]], codes)
    for name in ("ids", "positions", "modality"):
        np.testing.assert_array_equal(getattr(made, name), getattr(expected, name))


def test_only_keeps_the_steps_of_the_instructions_that_match():
    whole = tiny.sequences(episodes=8, steps=STEPS).shard
    made = whole.only("^(touch|stop)")
    assert sorted(made.instructions) == ["stop", "touch the red cube"]
    keep = np.array([whole.instructions[row] in made.instructions for row in whole.text])
    np.testing.assert_array_equal(made.actions, whole.actions[keep])
    assert [made.instructions[r] for r in made.text] == [whole.instructions[r] for r in whole.text[keep]]
    with pytest.raises(ConfigError, match="leaves no instruction"):
        whole.only("dance")
