"""What tuning measures, on chunks whose distributions are known; and what it chooses, on rows made by hand."""

from __future__ import annotations

import numpy as np
import pytest
import tiny

from udvla_ros.decoding.interface import DecodeOptions
from udvla_ros.errors import ConfigError
from udvla_ros.evaluation.store import Store, key
from udvla_ros.evaluation.tuning import tune, tune_front
from udvla_ros.evaluation.tuning.tune_front import Wish
from udvla_ros.policy import Policy

N, S, K, D = 30, 6, 8, 7


def drawn(seed=0, spread=0.01, shift=0.0, codes=None):
    rng = np.random.default_rng(seed)
    centre = np.random.default_rng(99).normal(0, 0.05, (N, 1, K, D))  # what each observation asks for
    actions = centre + rng.normal(0, spread, (N, S, K, D)) + shift
    if codes is None:
        codes = np.random.default_rng(98).integers(0, 16, (N, 1, 10)).repeat(S, 1)
    return tune.Drawn(actions, codes, [10.0, 12.0], [20.0, 20.0], 9.0)


# -- agreement -----------------------------------------------------------------------------------------


def test_another_seed_of_the_same_thing_agrees_and_is_as_far_as_the_reference_from_itself():
    told = tune.compare(drawn(0), drawn(1), "tcp_delta")
    assert told["agreement"] > 0.98
    assert told["ratio"] == pytest.approx(1.0, abs=0.03)
    assert told["translation"]["rmse"] == pytest.approx(0.01 * np.sqrt(2 * 3), rel=0.05)
    assert told["translation"]["unit"] == "m" and told["rotation"]["unit"] == "rad"


def test_a_shift_is_seen_in_all_numbers():
    told = tune.compare(drawn(0), drawn(1, shift=0.02), "tcp_delta")
    assert told["agreement"] < 0.8
    assert told["translation"]["rmse"] == pytest.approx(np.sqrt(3) * np.hypot(0.02, 0.01 * np.sqrt(2)), rel=0.05)


def test_a_narrower_sampler_is_nearer_and_yet_agrees_less():
    """Greedy decoding sits in the middle of what the reference does: its RMSE alone would praise it."""
    same, greedy = (tune.compare(drawn(0), drawn(1, spread=s), "tcp_delta") for s in (0.01, 0.0))
    assert greedy["translation"]["rmse"] < same["translation"]["rmse"]
    assert greedy["agreement"] < 0.8 < same["agreement"]


def test_the_same_seed_of_both_is_not_compared():
    """Common noise would make a copy of the reference look closer than another run of it."""
    copy = tune.compare(drawn(0), drawn(0), "tcp_delta")
    assert copy["ratio"] == 1.0 and copy["agreement"] == 1.0


def test_decoders_without_chance_are_told_by_their_distance():
    told = [tune.compare(drawn(spread=0), drawn(spread=0, shift=s), "tcp_delta")["agreement"] for s in (0, 0.01, 0.1)]
    assert told[0] == 1.0 > told[1] > told[2] > 0


def test_joints_are_told_in_radians_and_the_gripper_by_its_sign():
    reference, other = drawn(0), drawn(1)
    other.actions[:, :, :4, -1] = 1.0
    other.actions[:, :, 4:, -1] = -1.0
    reference.actions[..., -1] = 1.0
    told = tune.compare(reference, other, "joint_delta")
    assert told["joints"]["unit"] == "rad" and told["gripper_agreement"] == 0.5


def test_image_codes_are_compared_where_both_have_one():
    reference = drawn(0)
    codes = reference.codes.copy()
    codes[..., :4] = -1  # a sketch leaves these open
    codes[..., 4:7] = (codes[..., 4:7] + 1) % 16
    assert tune.compare(reference, drawn(1, codes=codes), "tcp_delta")["image_agreement"] == 0.5
    none = np.full_like(codes, -1)
    assert tune.compare(reference, drawn(1, codes=none), "tcp_delta")["image_agreement"] is None


# -- candidates ----------------------------------------------------------------------------------------


def test_candidates_are_different_begin_with_the_reference_and_have_the_bundles_own():
    policy = Policy(tiny.bundle())
    found = tune.candidates(policy)
    assert found[0].name == tune.REFERENCE and found[0].options.steps == tune.REFERENCE_STEPS and found[0].exact
    assert policy.options() in [c.options for c in found]
    assert len({c.name for c in found}) == len({c.options for c in found}) == len(found)
    assert {c.options.foresight for c in found} == {"full", "sketch", "off"}
    approximate = [c for c in found if not c.exact]
    assert approximate and all(c.options.remask for c in approximate)
    assert any(c.options.samples > 1 for c in found) and any(c.options.entropy_bound for c in found)


def test_a_causal_bundle_is_tried_with_its_own_decoders():
    found = tune.candidates(Policy(tiny.bundle("causal")))
    assert found[0].options.decoder == "autoregressive" and {c.options.decoder for c in found[2:]} == {"jacobi"}


def test_a_grid_is_every_combination_by_the_names_of_parameters():
    policy = Policy(tiny.bundle())
    found = tune.grid(policy, ["denoise_steps=2,4", "foresight=full,off", "stop_when_ready=true"])
    options = [c.options for c in found[1:]]
    assert {(o.steps, o.foresight, o.stop_when_ready) for o in options} == {
        (s, f, True) for s in (2, 4) for f in ("full", "off")
    }
    assert found[1].name == "jd3p 2 stop-when-ready"


@pytest.mark.parametrize("text", ["steps=2", "denoise_steps", "denoise_steps=two", "stop_when_ready=1", "foresight=x"])
def test_a_grid_that_makes_no_sense_is_one_line(text):
    with pytest.raises(ConfigError):
        tune.grid(Policy(tiny.bundle()), [text])


# -- the choice ----------------------------------------------------------------------------------------


def row(name, p50, agreement, rate=None, exact=True, p95=None):
    made = {"name": name, "latency_ms": {"p50": p50, "p95": p95 or 1.1 * p50}, "agreement": agreement, "exact": exact}
    return made | ({} if rate is None else {"success": {"rate": rate}})


ROWS = [
    row("reference", 200, 1.0, 0.95),
    row("eight", 80, 0.98, 0.95),
    row("four", 50, 0.93, 0.93),
    row("two", 30, 0.8, 0.7),
    row("warm", 40, 0.9, 0.94, exact=False),
    row("slow", 90, 0.9),
    row("off", 20, 0.85),
]


def test_the_front_is_what_nothing_beats_in_both():
    assert [r["name"] for r in tune_front.front(ROWS)] == ["off", "warm", "four", "eight", "reference"]
    simulated = [r for r in ROWS if "success" in r]
    assert [r["name"] for r in tune_front.front(simulated, "success")] == ["two", "warm", "eight"]


@pytest.mark.parametrize(
    ("wish", "chosen"),
    [
        (Wish(budget_ms=60), "warm"),
        (Wish(budget_ms=60, exact=True), "four"),
        (Wish(budget_ms=100), "eight"),
        (Wish(floor=0.97), "warm"),
        (Wish(floor=0.97, exact=True), "four"),
        (Wish(floor=1.0), "eight"),
        (Wish(floor=0.5), "two"),
    ],
)
def test_a_wish_chooses_among_what_was_simulated(wish, chosen):
    assert tune_front.choose(ROWS, wish, ROWS[0])["name"] == chosen


def test_without_simulation_agreement_decides():
    plain = [{k: v for k, v in r.items() if k != "success"} for r in ROWS]
    assert tune_front.choose(plain, Wish(floor=0.9), plain[0])["name"] == "warm"
    assert tune_front.choose(plain, Wish(budget_ms=25), plain[0])["name"] == "off"


@pytest.mark.parametrize(
    ("wish", "said"), [(Wish(budget_ms=5), "'two', takes 33 ms"), (Wish(floor=1.0), "comes nearest")]
)
def test_a_wish_that_nothing_meets_says_what_comes_nearest(wish, said):
    rows = [r for r in ROWS[2:] if "success" in r]
    with pytest.raises(ConfigError, match=said):
        tune_front.choose(rows, wish, ROWS[0])


@pytest.mark.parametrize("wish", [{}, {"budget_ms": 5, "floor": 0.9}, {"budget_ms": 0}, {"floor": 1.5}])
def test_wishes_that_make_no_sense_are_refused(wish):
    with pytest.raises(ConfigError):
        Wish(**wish)


# -- what was measured stays ---------------------------------------------------------------------------


def test_results_outlive_a_run_that_was_ended_in_the_middle_of_a_line(tmp_path):
    path = tmp_path / "r.jsonl"
    store = Store(path)
    store.put("a", {"x": 1})
    store.put("b", {"x": 2})
    path.write_bytes(path.read_bytes()[:-7])
    again = Store(path)
    assert again.get("a") == {"x": 1} and again.get("b") is None
    again.put("b", {"x": 3})
    last = Store(path)
    assert (last.get("a"), last.get("b")) == ({"x": 1}, {"x": 3})
    assert len(Store(path, fresh=True)) == 0


def test_a_result_counts_only_for_exactly_what_was_measured():
    one = {"options": vars(DecodeOptions(steps=4)), "seeds": 4}
    assert key(**one) == key(**one)
    assert key(**one) != key(**{**one, "seeds": 3}) != key(**{**one, "options": vars(DecodeOptions(steps=5))})
