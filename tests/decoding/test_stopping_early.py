"""Early exit caps the steps of denoising; a sketch leaves the images unfinished on purpose."""

from __future__ import annotations

import functools
import math

import pytest
import tiny

from udvla_ros.decoding.independent import Independent
from udvla_ros.decoding.interface import Decoded, DecodeOptions
from udvla_ros.decoding.jd3p import JD3P
from udvla_ros.decoding.schedule import masked_shares, schedules
from udvla_ros.policy.policy import Observation, Policy

IMAGES, ACTIONS, VISUAL_SLOTS = 14, 15, 10


@functools.lru_cache(maxsize=16)
def decoder(kind: str, model: int, which: type) -> JD3P | Independent:
    return which(tiny.backbone(kind, model), tiny.fast().lattice(tiny.ACTION_SLOTS))


def decode(options: DecodeOptions, kind="hybrid", model=0, which=JD3P) -> Decoded:
    return decoder(kind, model, which)(tiny.prefix([[1, 2, 3], [4]], model), options, 0)


def complete(decoded: Decoded) -> bool:
    shapes = [tiny.fast().decode(codes).shape for codes in decoded.actions]
    return bool((decoded.visual >= 0).all()) and shapes == [(tiny.CHUNK, tiny.DIMENSIONS)] * 2


# -- early exit --------------------------------------------------------------------------------------


def test_schedule_is_cut_and_its_last_step_commits_the_rest():
    def shares(iterations: int | None) -> list[float]:
        return [step.masked for step in schedules(DecodeOptions(steps=8, iterations=iterations))[0]]

    whole = masked_shares("public", 8)
    assert shares(3) == [*whole[:2], 0.0]
    assert shares(1) == [0.0]
    assert shares(None) == shares(8) == shares(20) == whole


def test_temperatures_fall_over_the_steps_that_are_left():
    options = DecodeOptions(steps=8, action_steps=3, iterations=4, sampler="annealed", temperature=1.0)
    visual, action = schedules(options)
    assert [step.token_temperature for step in visual] == [1.0, 0.75, 0.5, 0.25]
    assert [step.token_temperature for step in action] == pytest.approx([1.0, 2 / 3, 1 / 3])


@pytest.mark.parametrize("iterations", [1, 3, 7])
def test_joint_denoising_stops_after_so_many_forwards(iterations):
    decoded = decode(DecodeOptions(steps=7, iterations=iterations))
    assert len(decoded.steps) == iterations
    assert complete(decoded)


def test_until_the_exit_nothing_differs():
    whole, short = (decode(DecodeOptions(steps=8, iterations=n)) for n in (None, 4))
    for a, b in zip(whole.steps[:3], short.steps[:3], strict=True):
        assert (a.visual_committed, a.visual_confidence) == (b.visual_committed, b.visual_confidence)
        assert (a.action_committed, a.action_confidence) == (b.action_committed, b.action_confidence)
    assert short.steps[3].visual_committed > whole.steps[3].visual_committed


def test_images_and_action_are_capped_each_by_itself():
    decoded = decode(DecodeOptions(steps=6, action_steps=2, iterations=3))
    assert [s.forward_tokens for s in decoded.steps] == [IMAGES, IMAGES + ACTIONS, IMAGES + ACTIONS]
    assert complete(decoded)
    decoded = decode(DecodeOptions(steps=6, action_steps=2, iterations=3), which=Independent)
    assert len(decoded.steps) == 5
    assert complete(decoded)


# -- sketch ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["public", "paper"])
@pytest.mark.parametrize("steps", [2, 4, 5, 8])
@pytest.mark.parametrize("which", [JD3P, Independent])
def test_images_stop_halfway_through_their_schedule(steps, schedule, which):
    half = math.ceil(steps / 2)
    decoded = decode(DecodeOptions(steps=steps, schedule=schedule, foresight="sketch"), which=which)
    left = int(masked_shares(schedule, steps)[half - 1] * VISUAL_SLOTS)
    assert ((decoded.visual == -1).sum(1) == left).all()
    assert left > 0
    assert sum(s.visual_committed > 0 for s in decoded.steps) <= half
    for codes in decoded.actions:
        assert tiny.fast().decode(codes).shape == (tiny.CHUNK, tiny.DIMENSIONS)


def test_sketched_codes_are_the_first_ones_of_the_whole_image():
    for model in range(4):
        sketch, whole = (decode(DecodeOptions(steps=6, foresight=f), model=model).visual for f in ("sketch", "full"))
        assert (sketch[sketch >= 0] == whole[sketch >= 0]).all()


def test_once_the_sketch_stands_only_the_action_is_run():
    def tokens(**options) -> list[int]:
        return [s.forward_tokens for s in decode(DecodeOptions(foresight="sketch", **options)).steps]

    whole = IMAGES + ACTIONS
    assert tokens(steps=6) == [whole] * 4 + [ACTIONS] * 2
    # No longer than it needs: three image steps, the action in the last two of them.
    assert tokens(steps=6, action_steps=2) == [IMAGES, whole, whole]


@pytest.mark.parametrize("kind", ["hybrid", "causal"])
@pytest.mark.parametrize("iterations", [None, 2])
def test_cache_changes_no_token(kind, iterations):
    for model in range(4):
        cached, full = (
            decode(DecodeOptions(steps=6, foresight="sketch", iterations=iterations, use_cache=cache), kind, model)
            for cache in (True, False)
        )
        assert cached.visual.tolist() == full.visual.tolist()
        assert cached.actions == full.actions


def test_a_sketch_is_never_shown():
    policy = Policy(tiny.bundle())
    seen = Observation(tiny.images(), tiny.SENTENCES[0])
    shown = {f: policy.infer(seen, DecodeOptions(steps=4, foresight=f)).predicted for f in ("full", "sketch")}
    assert set(shown["full"]) == {"front", "wrist"}
    assert shown["sketch"] == {}


def test_the_action_watches_the_sketch():
    """Blind, sketched and full foresight are three conditions, not two."""
    found = {
        str([decode(DecodeOptions(steps=6, foresight=f), model=m).actions for m in range(4)])
        for f in ("full", "sketch", "off")
    }
    assert len(found) == 3
