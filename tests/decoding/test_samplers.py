"""Each sampler against the enumerated distribution of a small lattice, and who is committed against its law."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from udvla_ros.decoding.interface import DecodeOptions
from udvla_ros.decoding.ranking import entropy_bounded, joint_count, jointly
from udvla_ros.decoding.samplers import draw_action, exact, perturbed
from udvla_ros.decoding.sampling import gumbel
from udvla_ros.decoding.schedule import Step, schedule_of
from udvla_ros.tokens.action_lattice import Lattice

LENGTHS, TOTAL, SLOTS = (1, 2, 2, 3), 4, 5
LATTICE = Lattice(LENGTHS, TOTAL, SLOTS)
EOA, OPEN = len(LENGTHS), -1
DRAWS = 3000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scores(seed: int = 1) -> torch.Tensor:
    return (1.5 * torch.randn(SLOTS, EOA + 1, generator=generator(seed))).log_softmax(-1)


def sequences(committed: tuple[int, ...] = (OPEN,) * SLOTS) -> list[tuple[int, ...]]:
    """All rows of codes, EOA and OPEN behind it that fill the chunk and keep what is committed."""
    found = []
    for count in range(1, SLOTS):
        for codes in itertools.product(range(EOA), repeat=count):
            row = (*codes, EOA, *[OPEN] * (SLOTS - count - 1))
            kept = all(want in (OPEN, have) for want, have in zip(committed, row, strict=True))
            if kept and sum(LENGTHS[code] for code in codes) == TOTAL:
                found.append(row)
    return found


def weight(row: tuple[int, ...], table: torch.Tensor, committed: tuple[int, ...]) -> float:
    return sum(float(table[i, code]) for i, code in enumerate(row) if code != OPEN and committed[i] == OPEN)


def frequencies(drawn: list[list[int]], among: list[tuple[int, ...]]) -> np.ndarray:
    rows = [(*codes, EOA, *[OPEN] * (SLOTS - len(codes) - 1)) for codes in drawn]
    return np.array([rows.count(row) for row in among])


def chi_squared(counts: np.ndarray, shares: np.ndarray) -> float:
    """Return by how many deviations chi squared is off its mean; rare outcomes are pooled."""
    expected = counts.sum() * shares
    rare = expected < 5
    if rare.any():
        counts = np.append(counts[~rare], counts[rare].sum())
        expected = np.append(expected[~rare], expected[rare].sum())
    return float(((counts - expected) ** 2 / expected).sum() - len(counts) + 1) / (2 * len(counts)) ** 0.5


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("committed", [(OPEN,) * SLOTS, (OPEN, 2, OPEN, OPEN, OPEN), (OPEN, OPEN, EOA, OPEN, OPEN)])
def test_exact_draws_are_the_models(temperature, committed):
    table, among = scores(), sequences(committed)
    many = table.expand(DRAWS, -1, -1)
    drawn = exact(many, np.tile(committed, (DRAWS, 1)), LATTICE, temperature, generator(2))
    counts = frequencies(drawn, among)
    assert counts.sum() == DRAWS  # nothing else is ever drawn
    odds = np.exp([weight(row, table, committed) / temperature for row in among])
    assert len(among) > 1 and chi_squared(counts, odds / odds.sum()) < 5


def test_perturbed_draws_are_the_best_sequences_under_the_very_noise():
    """Perturb-and-MAP by enumeration: the same noise, every sequence summed, the largest taken."""
    table, among = scores(), sequences()
    many = table.expand(400, -1, -1)
    noisy = many + 0.7 * gumbel(many.shape, generator(3), many.device)
    sums = np.stack([sum(noisy[:, i, c].numpy() for i, c in enumerate(r) if c != OPEN) for r in among], 1)
    expected = [among[best] for best in sums.argmax(1)]
    drawn = perturbed(many, np.full((400, SLOTS), OPEN), LATTICE, 0.7, generator(3))
    assert [tuple(codes) for codes in drawn] == [row[: row.index(EOA)] for row in expected]


def test_perturbed_draws_are_the_models_on_one_slot_and_not_on_sequences():
    one = Lattice((1, 1, 1), 1, 2)
    table = torch.tensor([[0.3, 1.0, -0.5, 0.0], [0.0] * 4]).log_softmax(-1)
    drawn = perturbed(table.expand(DRAWS, -1, -1), np.full((DRAWS, 2), OPEN), one, 1.0, generator(4))
    counts = np.bincount([codes[0] for codes in drawn], minlength=3)
    assert chi_squared(counts, table[0, :3].softmax(-1).numpy()) < 5
    table, among = scores(), sequences()
    drawn = perturbed(table.expand(DRAWS, -1, -1), np.full((DRAWS, SLOTS), OPEN), LATTICE, 1.0, generator(5))
    odds = np.exp([weight(row, table, (OPEN,) * SLOTS) for row in among])
    assert chi_squared(frequencies(drawn, among), odds / odds.sum()) > 20


@pytest.mark.parametrize("law", [exact, perturbed])
def test_cold_draws_are_the_most_probable_sequence(law):
    table, among = scores(), sequences()
    best = max(among, key=lambda row: weight(row, table, (OPEN,) * SLOTS))
    drawn = law(table[None], np.full((1, SLOTS), OPEN), LATTICE, 0.0, generator())
    assert tuple(drawn[0]) == best[: best.index(EOA)]


def test_what_an_action_draw_tells():
    table = scores()
    committed = torch.tensor([[OPEN, 2, OPEN, OPEN, OPEN]])
    drawn = draw_action(table[None], committed, LATTICE, Step(0.0, 1.0), generator(), True)
    row = drawn.tokens[0].tolist()
    assert row[1] == 2 and tuple(row) in sequences((OPEN, 2, OPEN, OPEN, OPEN))
    assert drawn.masked[0].tolist() == [code != OPEN and i != 1 for i, code in enumerate(row)]
    assert int(drawn.count) == row.index(EOA) + 1
    sure = [float(table[i, code].exp()) for i, code in enumerate(row) if code != OPEN]
    assert drawn.confidence[0, : len(sure)].tolist() == pytest.approx(sure)
    assert drawn.entropy[0].tolist() == pytest.approx(-(table.exp() * table).sum(-1).numpy(), abs=1e-5)


@pytest.mark.parametrize("committed", [(OPEN, OPEN, OPEN, 1, OPEN), (OPEN, 2, EOA, OPEN, 0)])
def test_what_is_committed_behind_eoa_binds_nobody_who_ends_before(committed):
    """Drawn behind EOA: the sequence from the model's distribution, each slot behind it from its own softmax."""
    table = scores()
    every = [(row, row.index(EOA)) for row in sequences()]
    among = [row for row, end in every if all(c in (OPEN, row[i]) for i, c in enumerate(committed[: end + 1]))]
    many, held = table.expand(DRAWS, -1, -1), torch.tensor([committed] * DRAWS)
    drawn = draw_action(many, held, LATTICE, Step(0.0, 1.0), generator(7), False, behind=True)
    rows = drawn.tokens.tolist()
    counts = frequencies([row[: row.index(EOA)] for row in rows], among)
    assert counts.sum() == DRAWS
    odds = np.exp([weight(row, table, committed) for row in among])
    assert len(among) > 1 and chi_squared(counts, odds / odds.sum()) < 5
    assert drawn.masked.all(0).tolist() == [code == OPEN for code in committed] and (drawn.count == SLOTS).all()
    last = SLOTS - 1  # behind every EOA but its own
    behind = [row[last] for row in rows if row.index(EOA) < last]
    if committed[last] == OPEN:
        shares = np.array([behind.count(code) for code in range(EOA + 1)])
        assert chi_squared(shares, table[last].exp().double().numpy()) < 5
    else:
        assert set(behind) == {committed[last]}


# -- the published ranking -----------------------------------------------------------------------------


def test_published_commits_as_many_slots_as_the_released_code():
    """817 slots of which BOI, EOI and BOA are known; what the last step leaves there is committed here."""
    schedule = schedule_of(DecodeOptions(sampler="published", temperature=1.0), 8)
    unknown, counts = torch.tensor([812]), []
    for step in schedule:
        left = joint_count(unknown, torch.tensor([817]), step.masked)
        counts.append(int(unknown - left))
        unknown = left
    assert counts == [11, 47, 75, 102, 124, 141, 153, 158 + 1]
    noise = [round(step.ranking_temperature, 4) for step in schedule]
    assert noise == [0.875, 0.6562, 0.4102, 0.2051, 0.0769, 0.0192, 0.0024, 0.0]
    assert all(step.token_temperature == 1.0 for step in schedule)


def test_published_ranking_draws_in_proportion_to_confidence():
    """Gumbel noise at temperature 1: who is committed is a draw without replacement (Plackett-Luce), enumerated."""
    confidence = torch.tensor([0.5, 0.05, 0.3, 0.15])
    masked = torch.tensor([True, True, False, True])
    chosen = jointly(confidence.expand(DRAWS, -1), masked.expand(DRAWS, -1), torch.full((DRAWS,), 1), 1.0, generator(6))
    assert not chosen[:, 2].any() and (chosen.sum(1) == 2).all()
    p = confidence[[0, 1, 3]].double().numpy() / 0.7
    pairs = [(0, 1), (0, 2), (1, 2)]
    shares = np.array([p[a] * p[b] / (1 - p[a]) + p[b] * p[a] / (1 - p[b]) for a, b in pairs])
    kept = chosen[:, [0, 1, 3]].numpy()
    counts = np.array([int((kept[:, a] & kept[:, b]).sum()) for a, b in pairs])
    assert chi_squared(counts, shares / shares.sum()) < 5
    cold = jointly(confidence[None], masked[None], torch.tensor([1]), 0.0, generator())
    assert cold.tolist() == [[True, False, False, True]]


# -- the entropy bound ---------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.0, 6.0, width=32), st.booleans()), min_size=1, max_size=7),
    st.floats(0.0625, 12.0, width=32),
)
def test_entropy_bound_by_its_definition(row, bound):
    """The largest set in rising order whose entropies but the largest stay within the bound."""
    values = torch.tensor([[value for value, _ in row]])
    masked = torch.tensor([[one for _, one in row]])
    chosen = entropy_bounded(values, masked, bound)[0].tolist()
    order = sorted((i for i, (_, one) in enumerate(row) if one), key=lambda i: row[i][0])
    expected, total = set(), torch.tensor(0.0)
    for i in order:
        if float(total) <= bound:
            expected.add(i)
        total = total + values[0, i]
    assert {i for i, one in enumerate(chosen) if one} == expected
    assert not order or expected  # one at least


# -- temperatures --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "sampler", "expected"),
    [
        (4, "annealed", [2.0, 1.5, 1.0, 0.5]),
        (2, "annealed", [2.0, 1.0]),
        (4, "exact", [2.0] * 4),
    ],
)
def test_tokens_are_drawn_at_the_temperature_of_their_own_schedule(steps, sampler, expected):
    options = DecodeOptions(steps=8, action_steps=steps, sampler=sampler, temperature=2.0)
    assert [step.token_temperature for step in schedule_of(options, steps)] == expected
    assert all(step.ranking_temperature == 0 for step in schedule_of(options, steps))
