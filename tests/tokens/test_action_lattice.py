"""The lattice against brute force: best sequence, committed codes, and what may still follow."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from udvla_ros.errors import TokenError
from udvla_ros.tokens.action_lattice import FREE, Lattice


def accepted(codes: tuple[int, ...], lengths: np.ndarray, successors: np.ndarray, total: int) -> bool:
    state = 0
    for code in codes:
        state = successors[state, code]
        if state < 0:
            return False
    return state == 0 and lengths[list(codes)].sum() == total


def every_sequence(
    lengths: np.ndarray, successors: np.ndarray, total: int, slots: int, fixed: list[int]
) -> list[tuple[int, ...]]:
    """All well-formed sequences that keep ``fixed``, by trying each."""
    vocabulary = len(lengths)
    found = []
    for count in range(1, slots):
        for codes in itertools.product(range(vocabulary), repeat=count):
            row = [*codes, vocabulary, *[FREE] * (slots - count - 1)]
            kept = all(want in (FREE, have) for want, have in zip(fixed, row, strict=True))
            if kept and accepted(codes, lengths, successors, total):
                found.append(codes)
    return found


@st.composite
def problems(draw: st.DrawFn) -> tuple:
    vocabulary, slots = draw(st.integers(1, 4)), draw(st.integers(2, 5))
    lengths = np.array(draw(st.lists(st.integers(0, 3), min_size=vocabulary, max_size=vocabulary)))
    states = draw(st.integers(1, 3))
    rows = st.lists(st.integers(-1, states - 1), min_size=vocabulary, max_size=vocabulary)
    successors = np.array(draw(st.lists(rows, min_size=states, max_size=states)))
    if draw(st.booleans()):
        successors[successors < 0] = 0
    # A total that some codes add up to: most random ones have no well-formed sequence at all.
    some = draw(st.lists(st.integers(0, vocabulary - 1), min_size=1, max_size=slots - 1))
    total = max(1, int(lengths[some].sum()))
    fixed = [FREE] * slots
    kind = draw(st.sampled_from(["free", "any", "feasible"]))
    if kind == "any":
        fixed = draw(st.lists(st.integers(FREE, vocabulary), min_size=slots, max_size=slots))
    elif kind == "feasible":
        candidates = every_sequence(lengths, successors, total, slots, fixed)
        if candidates:
            row = [*draw(st.sampled_from(candidates)), vocabulary]
            shown = draw(st.lists(st.booleans(), min_size=len(row), max_size=len(row)))
            fixed = [code if show else FREE for code, show in zip(row, shown, strict=True)]
            fixed += [FREE] * (slots - len(row))
    scores = np.random.default_rng(draw(st.integers(0, 9999))).normal(size=(slots, vocabulary + 1))
    return lengths, successors, total, slots, fixed, scores


@settings(deadline=None, max_examples=300)
@given(problems())
def test_best_is_the_best_of_all(problem: tuple) -> None:
    lengths, successors, total, slots, fixed, scores = problem
    lattice = Lattice(lengths, total, slots, successors)
    candidates = every_sequence(lengths, successors, total, slots, fixed)

    def score(codes: tuple[int, ...]) -> float:
        row = [*codes, len(lengths)]
        return sum(scores[slot, code] for slot, code in enumerate(row) if fixed[slot] == FREE)

    if not candidates:
        with pytest.raises(TokenError, match="give more action slots"):
            lattice.best(scores, fixed)
        return
    best = tuple(lattice.best(scores, fixed))
    assert best in candidates
    assert score(best) == pytest.approx(max(map(score, candidates)))


@settings(deadline=None, max_examples=300)
@given(problems())
def test_allowed_is_what_occurs_in_some_sequence(problem: tuple) -> None:
    lengths, successors, total, slots, fixed, _ = problem
    wanted = np.zeros((slots, len(lengths) + 1), dtype=bool)
    for codes in every_sequence(lengths, successors, total, slots, fixed):
        for slot, code in enumerate([*codes, len(lengths)]):
            wanted[slot, code] = True
    np.testing.assert_array_equal(Lattice(lengths, total, slots, successors).allowed(fixed), wanted)


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**32 - 1))
def test_choosing_any_allowed_code_one_by_one_never_gets_stuck(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = np.array([1, 1, 2, 3, 5, 0])
    lattice = Lattice(lengths, total=11, slots=6)
    fixed = np.full(6, FREE)
    for slot in rng.permutation(6):
        choices = np.flatnonzero(lattice.allowed(fixed)[slot])
        if choices.size:  # a slot behind EOA has none, and needs none
            fixed[slot] = rng.choice(choices)
    end = int(np.flatnonzero(fixed == len(lengths))[0])
    codes = lattice.best(np.zeros((6, 7)), fixed)
    assert codes == fixed[:end].tolist()
    assert lengths[codes].sum() == 11


def test_a_code_of_length_zero_may_come_after_the_last_coefficient() -> None:
    lattice = Lattice([1, 0], total=1, slots=4, successors=[[0, 0]])
    allowed = lattice.allowed([FREE, FREE, 1, FREE])
    np.testing.assert_array_equal(allowed, [[1, 1, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1]])


def test_slots_behind_the_end_do_not_count() -> None:
    lattice = Lattice([1, 2], total=2, slots=4)
    scores = np.log([[0.1, 0.8, 0.1], [0.2, 0.1, 0.7], [0.5, 0.4, 0.1], [0.9, 0.05, 0.05]])
    assert lattice.best(scores) == [1]
    scores[3] = -np.inf
    assert lattice.best(scores) == [1]


def test_minus_infinity_rules_a_code_out_unless_it_is_committed() -> None:
    lattice = Lattice([1, 2], total=2, slots=3)
    scores = np.zeros((3, 3))
    scores[0, 1] = -np.inf
    assert lattice.best(scores) == [0, 0]
    assert lattice.best(scores, [1, FREE, FREE]) == [1]
    scores[0, 0] = -np.inf
    with pytest.raises(TokenError):
        lattice.best(scores)


def test_too_few_slots_and_conflicting_codes_are_refused() -> None:
    scores = np.zeros((3, 2))
    with pytest.raises(TokenError, match="exactly 4 coefficients with EOA in 3 slots"):
        Lattice([1], total=4, slots=3).best(scores)
    with pytest.raises(TokenError, match="with 1 of them committed"):
        Lattice([1], total=2, slots=3).best(scores, [1, FREE, FREE])
    with pytest.raises(TokenError, match="exactly 2"):
        Lattice([0], total=2, slots=3).best(scores)


def test_nonsense_inputs_are_refused() -> None:
    lattice = Lattice([1, 2], total=2, slots=3)
    scores = np.zeros((3, 3))
    with pytest.raises(TokenError, match=r"give \[3, 3\]"):
        lattice.best(np.zeros((3, 2)))
    with pytest.raises(TokenError, match="NaN"):
        lattice.best(np.full((3, 3), np.nan))
    for fixed in ([0, 0], [3, FREE, FREE], [-2, FREE, FREE]):
        with pytest.raises(TokenError, match="fixed codes must be"):
            lattice.best(scores, fixed)
    with pytest.raises(TokenError, match="at least"):
        Lattice([1], total=1, slots=1)
    with pytest.raises(TokenError, match="do not match"):
        Lattice([1], total=1, slots=2, successors=[[0, 0]])


@given(st.lists(st.integers(0, 8), min_size=1, max_size=8), st.integers(1, 12), st.integers(2, 8))
def test_allowed_is_empty_exactly_where_best_refuses(lengths: list[int], total: int, slots: int) -> None:
    lattice = Lattice(lengths, total, slots)
    if lattice.allowed().any():
        assert sum(lengths[code] for code in lattice.best(np.zeros((slots, len(lengths) + 1)))) == total
    else:
        with pytest.raises(TokenError):
            lattice.best(np.zeros((slots, len(lengths) + 1)))
