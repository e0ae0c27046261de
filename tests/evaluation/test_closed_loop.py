"""The loop with the expert in the policy's place must succeed: then a failure is the policy's."""

from __future__ import annotations

import numpy as np
import pytest

from udvla_ros.errors import ConfigError, TokenError
from udvla_ros.evaluation.cases import EVALUATION_SEEDS, Case, make_case, swap_cases, task_cases
from udvla_ros.evaluation.closed_loop import OUT_OF_TIME, LoopOptions
from udvla_ros.evaluation.swap import ApproachJudge, summarise_swap
from udvla_ros.sim.tasks import Task, parse


@pytest.mark.parametrize(("kind", "latency"), [("touch", 0), ("touch", 2), ("pick", 0)])
def test_the_expert_behind_the_loop_succeeds(make_loop, kind, latency):
    cases = task_cases(kind, 6, 40)
    outcomes = make_loop(execute=4, latency=latency).run(cases)
    assert [o.case for o in outcomes] == cases
    assert all(o.success for o in outcomes), [o.reason for o in outcomes]
    assert all(not o.refusals for o in outcomes)
    assert all(5 <= o.steps < o.case.limit for o in outcomes)


def test_worlds_share_batches(make_loop, expert, three_worlds):
    make_loop().run(task_cases("touch", 4, 7))
    assert max(expert.batches) == len(three_worlds)


def test_actions_upside_down_fail_in_time(make_loop, expert):
    expert.spoil = lambda index, actions: np.concatenate([-actions[:, :6] * 0.2, actions[:, 6:]], axis=1)
    short = Case(EVALUATION_SEEDS + 3, Task("touch", "red"), "touch the red cube", 12)
    (outcome,) = make_loop().run([short])
    assert not outcome.success and outcome.reason == OUT_OF_TIME and outcome.steps == 12


def test_a_chunk_out_of_reach_is_refused_and_the_arm_stays(make_loop, expert, three_worlds):
    expert.spoil = lambda index, actions: actions + np.eye(7)[0].astype(np.float32) * 0.6
    case = Case(EVALUATION_SEEDS + 3, Task("touch", "red"), "touch the red cube", 8)
    (outcome,) = make_loop().run([case], traces=1)
    assert outcome.refusals == {"UnreachableTarget": 2}
    assert OUT_OF_TIME in outcome.reason and "UnreachableTarget" in outcome.reason
    assert np.ptp(np.array(outcome.trace.tcp), axis=0).max() < 2e-3


def test_one_bad_sentence_does_not_spoil_its_neighbours(make_loop, expert, monkeypatch):
    infer = expert.infer_batch

    def picky(observations, options=None, seed=0, previous=None):
        if any(o.instruction == "" for o in observations):
            raise TokenError("the instruction is empty")
        return infer(observations, options, seed)

    monkeypatch.setattr(expert, "infer_batch", picky)
    good = make_case(EVALUATION_SEEDS + 1, Task("touch", "blue"))
    bad = Case(EVALUATION_SEEDS + 2, Task("touch", "red"), "", 8)
    first, second = make_loop().run([good, bad])
    assert first.success and not first.refusals
    assert second.refusals == {"TokenError": 2}


def test_late_chunks_start_where_time_has_come_to(make_loop, expert):
    """With latency the plan in force goes on meanwhile, and nothing moves before the first chunk is there."""
    case = Case(EVALUATION_SEEDS + 5, Task("touch", "red"), "touch the red cube", 8)
    steady = np.zeros((8, 7), np.float32)
    steady[:, 0], steady[:, 6] = 0.01, 1.0
    expert.spoil = lambda index, actions: steady
    (prompt,) = make_loop(execute=4, latency=0).run([case], traces=1)
    (late,) = make_loop(execute=4, latency=3).run([case], traces=1)
    x = {name: np.array(o.trace.tcp)[:, 0] for name, o in (("prompt", prompt), ("late", late))}
    assert np.ptp(x["late"][:4]) < 2e-3
    assert x["prompt"][8] - x["prompt"][0] == pytest.approx(0.08, abs=0.015)
    assert x["late"][8] - x["late"][0] == pytest.approx(0.08, abs=0.015), "deltas are due by the observation's clock"


def test_traces_hold_what_was_seen_and_foreseen(make_loop):
    cases = task_cases("touch", 2, 11)
    first, second = make_loop().run(cases, traces=1)
    assert second.trace is None
    trace = first.trace
    assert len(trace.frames) == len(trace.tcp) == first.steps + 1
    assert [m.step for m in trace.moments] == list(range(0, first.steps, 4))
    assert all(m.due == m.step + 8 for m in trace.moments)
    assert np.array_equal(trace.moments[0].predicted["front"], trace.frames[0]["front"])


def test_the_expert_follows_the_colour_word(make_loop):
    cases = swap_cases(2, 20)
    outcomes = make_loop().run(cases, lambda case: ApproachJudge(case.task))
    section = summarise_swap(outcomes)
    assert section["words"]["right"] == 6 and section["scenes"]["followed"] == 2


def test_a_policy_deaf_to_colours_fails_the_swap(make_loop, expert, monkeypatch):
    infer = expert.infer_batch

    def deaf(observations, options=None, seed=0, previous=None):
        for o in observations:
            o.instruction = "touch the green cube"
        return infer(observations, options, seed)

    monkeypatch.setattr(expert, "infer_batch", deaf)
    section = summarise_swap(make_loop().run(swap_cases(2, 20), lambda case: ApproachJudge(case.task)))
    assert section["words"]["right"] == 2
    assert section["scenes"]["followed"] == section["scenes_changed"]["changed"] == 0
    assert section["approached_by_word"]["red"] == {"green": 2}


@pytest.mark.parametrize("options", [{"execute": 0}, {"latency": -1}, {"execute": 2, "latency": 3}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ConfigError):
        LoopOptions(**options)


def test_cases_are_unseen_seeds_and_say_what_they_mean():
    cases = task_cases("pick", 6, 5)
    assert [c.seed for c in cases] == [1_000_005 + i for i in range(6)]
    assert [c.task.colour for c in cases] == ["red", "green", "blue"] * 2
    assert all(parse(c.instruction) == c.task for c in cases)
    assert cases == task_cases("pick", 6, 5)
    with pytest.raises(ConfigError):
        task_cases("pick", 0, 5)
    with pytest.raises(ConfigError):
        task_cases("pick", 1, -1)


def test_swapped_sentences_differ_in_the_colour_alone():
    scenes = swap_cases(3, 0)
    for first in range(0, 9, 3):
        trio = scenes[first : first + 3]
        assert len({c.seed for c in trio}) == 1
        assert len({c.instruction.replace(c.task.colour, "") for c in trio}) == 1
