"""Quantile normalisation: inverse, clipping, the published files, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from udvla_ros.errors import BundleError, TokenError
from udvla_ros.tokens.normalize import QuantileNormalizer

RELEASED = Path(__file__).resolve().parents[3] / "shared" / "released"
published = pytest.mark.skipif(not RELEASED.is_dir(), reason=f"published files are absent: {RELEASED}")


@given(arrays(np.float64, (6, 3), elements=st.floats(-1, 1)))
def test_inside_the_quantiles_it_inverts(unit: np.ndarray) -> None:
    normalizer = QuantileNormalizer([-0.02, -3.0, 0.5], [0.01, 5.0, 0.9])
    actions = normalizer.denormalize(unit)
    assert (actions >= normalizer.q01 - 1e-6).all() and (actions <= normalizer.q99 + 1e-6).all()
    np.testing.assert_allclose(normalizer.normalize(actions), unit, atol=2e-6)


def test_values_are_those_of_the_formula_and_clipped() -> None:
    normalizer = QuantileNormalizer([0.0, -1.0], [2.0, 1.0])
    np.testing.assert_allclose(normalizer.normalize([[0.5, 0.25], [9.0, -9.0]]), [[-0.5, 0.25], [1.0, -1.0]])


def test_a_constant_dimension_maps_to_zero_and_back() -> None:
    normalizer = QuantileNormalizer.fit([[0.3, 1.0], [0.3, 2.0]])
    np.testing.assert_array_equal(normalizer.normalize([[0.3, 1.5], [7.0, 1.5]])[:, 0], [0, 0])
    np.testing.assert_allclose(normalizer.denormalize([[1.0, 0.0]])[0, 0], 0.3)


def test_the_floor_keeps_noise_small_and_zero_at_zero() -> None:
    rng = np.random.default_rng(0)
    actions = np.column_stack([rng.normal(0, 1e-4, 1000), rng.normal(0, 1, 1000), rng.normal(5, 1e-4, 1000)])
    normalizer = QuantileNormalizer.fit(actions, floor=0.02)
    unit = normalizer.normalize(actions)
    assert np.abs(unit[:, 0]).max() < 0.1
    assert np.abs(unit[:, 2]).max() < 0.1
    assert np.abs(unit[:, 1]).max() == 1
    assert normalizer.normalize([[0.0, 0.0, 5.0]])[0, 0] == 0
    np.testing.assert_allclose((normalizer.q99 - normalizer.q01)[[0, 2]], 0.02)


def test_a_floor_per_dimension_and_a_known_range() -> None:
    actions = np.zeros((1000, 2))
    actions[:, 1] = -1
    actions[0, 1] = 1  # closes in 0.1 % of the steps: the quantiles alone would miss it
    normalizer = QuantileNormalizer.fit(actions, floor=[0.5, 0.0], ranges={1: (-1, 1)})
    np.testing.assert_array_equal(normalizer.q01, [-0.25, -1])
    np.testing.assert_array_equal(normalizer.q99, [0.25, 1])
    np.testing.assert_array_equal(normalizer.normalize([0.0, 1.0]), [0, 1])


@pytest.mark.parametrize(
    ("q01", "q99", "says"),
    [
        ([0.0, 1.0], [1.0, 0.5], "dimension 1 has q01 1 above q99 0.5"),
        ([0.0], [1.0, 2.0], r"q99 has shape \(2,\)"),
        ([np.nan], [1.0], r"q01\[0\] is nan"),
        ([0.0], [np.inf], r"q99\[0\] is inf"),
        ([[0.0]], [[1.0]], r"q01 has shape \(1, 1\)"),
        (["a"], [1.0], "q01 is not a list of numbers"),
    ],
)
def test_impossible_quantiles_are_refused(q01: list, q99: list, says: str) -> None:
    with pytest.raises(TokenError, match=says):
        QuantileNormalizer(q01, q99)


def test_actions_that_do_not_fit_are_refused() -> None:
    normalizer = QuantileNormalizer([0.0, 0.0], [1.0, 1.0])
    with pytest.raises(TokenError, match="2 dimensions"):
        normalizer.normalize(np.zeros((4, 3)))
    with pytest.raises(TokenError, match=r"actions\[1, 0\] is nan"):
        normalizer.denormalize([[0.0, 0.0], [np.nan, 0.0]])
    with pytest.raises(TokenError, match=r"\[N, D\]"):
        QuantileNormalizer.fit(np.zeros((0, 2)))
    with pytest.raises(TokenError, match="floor"):
        QuantileNormalizer.fit(np.zeros((4, 2)), floor=[1.0, 2.0, 3.0])
    with pytest.raises(TokenError, match="dimension 2"):
        QuantileNormalizer.fit(np.zeros((4, 2)), ranges={2: (0, 1)})


def test_the_file_round_trips(tmp_path: Path) -> None:
    actions = np.random.default_rng(1).normal(size=(50, 4))
    fitted = QuantileNormalizer.fit(actions)
    path = fitted.save(tmp_path / "action", "nano")
    assert set(json.loads(path.read_text())["norm_stats"]["nano"]) == {"mean", "std", "q01", "q99"}
    loaded = QuantileNormalizer.load(tmp_path / "action")
    for key in ("q01", "q99", "mean", "std"):
        np.testing.assert_array_equal(getattr(loaded, key), getattr(fitted, key))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not"),
        ("[]", "is not"),
        ('{"norm_stats": {"a": {"q01": [0]}}}', "lacks q01 or q99"),
        ('{"norm_stats": {"a": {"q01": [2], "q99": [1]}}}', "above q99"),
        ('{"norm_stats": {"a": {}, "b": {}}}', "2 data sets"),
    ],
)
def test_broken_files_are_refused_by_name(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "norm_stats.json").write_text(text)
    with pytest.raises(BundleError, match=says) as caught:
        QuantileNormalizer.load(tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_an_absent_file_or_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be read"):
        QuantileNormalizer.load(tmp_path)
    QuantileNormalizer([0.0], [1.0]).save(tmp_path, "real")
    with pytest.raises(BundleError, match="no data set 'sim': it has real"):
        QuantileNormalizer.load(tmp_path, "sim")


@published
@pytest.mark.parametrize("name", ["bridge", "calvin", "libero"])
def test_published_statistics_are_read(name: str) -> None:
    normalizer = QuantileNormalizer.load(RELEASED / f"normalizer_{name}")
    assert normalizer.dimensions == 7
    np.testing.assert_allclose(normalizer.normalize(normalizer.q01), -1, atol=1e-6)
    np.testing.assert_allclose(normalizer.normalize(normalizer.q99), 1, atol=1e-6)
    inside = np.random.default_rng(0).uniform(normalizer.q01, normalizer.q99, (200, 7))
    np.testing.assert_allclose(normalizer.denormalize(normalizer.normalize(inside)), inside, atol=1e-6)
