"""The published action tokenisers: told apart, refused beside the wrong data, and the same both ways."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import released_files as files

from udvla_ros.errors import BundleError
from udvla_ros.released.fast import check_fast, known
from udvla_ros.tokens.action import FastTokenizer
from udvla_ros.tokens.normalize import QuantileNormalizer

NAMES = {"fast_calvin_abcd_a10_s50": ("calvin", 10), "fast_calvin_abcd_a5_s50": ("calvin", 5),
         "fast_libero_all_t10_s50": ("libero", 10)}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_published_ones_are_known_and_say_what_they_were_given(name):
    folder = files.published_files() / name
    data, chunk = NAMES[name]
    assert known(folder).name == name
    fast, said = check_fast(folder, data, chunk)
    assert name in said and "none of" not in said
    assert (fast.vocab_size, fast.min_token) == (1024, -round(50 * np.sqrt(chunk)))
    rng = np.random.default_rng(0)
    motion = np.clip(rng.normal(0, 0.3, (20, 1, 7)) + rng.normal(0, 0.05, (20, chunk, 7)), -1, 1)
    for row in motion:
        codes = fast.encode(row)
        assert fast.decode(codes) == pytest.approx(row, abs=np.sqrt(chunk) * 0.5 / 50 + 1e-6)
        assert fast.encode(fast.decode(codes)) == codes


def test_the_wrong_one_is_refused_although_it_has_the_same_shape():
    folder = files.published_files()
    for name, data, chunk in (("fast_libero_all_t10_s50", "calvin", 10), ("fast_calvin_abcd_a10_s50", "libero", 10),
                              ("fast_calvin_abcd_a5_s50", "calvin", 10),
                              ("fast_calvin_abcd_a10_s50", "bridge", 10)):  # fmt: skip
        with pytest.raises(BundleError, match=f"{name}.*fitted on"):
            check_fast(folder / name, data, chunk)


def test_what_goes_wrong_in_silence_otherwise():
    """CALVIN's codes read by LIBERO's tokeniser: no error, or another motion."""
    folder = files.published_files()
    calvin, libero = (
        FastTokenizer.load(folder / name, 10, 7) for name in ("fast_calvin_abcd_a10_s50", "fast_libero_all_t10_s50")
    )
    assert (calvin.min_token, calvin.max_token, calvin.vocab_size) == (
        libero.min_token,
        libero.max_token,
        libero.vocab_size,
    )
    chunk = np.full((10, 7), 0.5)
    assert calvin.encode(chunk) != libero.encode(chunk)


def test_an_unknown_one_is_said_aloud_or_refused(tmp_path):
    files.fast().save(tmp_path / "own")
    assert "none of the published ones" in check_fast(tmp_path / "own", "libero", 10)[1]
    folder = shutil.copytree(files.published_files() / "fast_calvin_abcd_a5_s50", tmp_path / "short")
    (folder / "tokenizer.json").chmod(0o644)
    with (folder / "tokenizer.json").open("a") as file:
        file.write("\n")  # another file, the same tokeniser: of 5 steps
    with pytest.raises(BundleError, match=r"cannot say a chunk of 10 steps.*outside -112\.\.112"):
        check_fast(folder, "calvin", 10)


@pytest.mark.parametrize(("data", "dimension", "value", "normal"), [
    ("calvin", 0, 0.67640000006764, 1.0), ("calvin", 1, -0.0108, 0.0), ("libero", 3, -0.11467779149968735, -1.0),
    ("bridge", 6, 0.5, 0.0002),
])  # fmt: skip
def test_normalisation_is_the_published_one(data, dimension, value, normal):
    normalizer = QuantileNormalizer.load(files.published_files() / f"normalizer_{data}")
    row = np.zeros(7)
    row[dimension] = value
    assert normalizer.normalize(row)[dimension] == pytest.approx(normal, abs=1e-3)
    assert normalizer.denormalize(normalizer.normalize(row))[dimension] == pytest.approx(value, abs=1e-6)
