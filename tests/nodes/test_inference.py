"""The inference thread on a clock of the test's own: when it looks, what it drops, which seeds it draws."""

from __future__ import annotations

import queue
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from udvla_ros.errors import ConfigError
from udvla_ros.motion.action_space import JointTargets
from udvla_ros.motion.errors import UnreachableTarget
from udvla_ros.nodes.inference import InferenceLoop, Settings
from udvla_ros.policy.observe import CommandHistory, Guards, ObservationBuffer

DT = 0.1
PICTURE = np.full((4, 4, 3), 100, np.uint8)


class Bench:
    """A loop whose world is a clock that stands still until it is set."""

    def __init__(self, execute_steps: int = 4, base_seed: int = 0) -> None:
        self.time = 100.0
        self.buffer = ObservationBuffer(["front"], Guards(max_age=0.5))
        self.history = CommandHistory(6)
        self.settings = Settings("go", None, execute_steps, base_seed)
        self.results: queue.Queue = queue.Queue()
        self.refusals: queue.Queue = queue.Queue()
        self.bugs: queue.Queue = queue.Queue()
        self.seeds: list[int] = []
        self.entered: queue.Queue = queue.Queue()
        self.leave: queue.Queue | None = None
        self.loop = InferenceLoop(
            self, self, self.buffer, self.history, lambda: self.settings,
            lambda images, instruction, stamp: SimpleNamespace(stamp=stamp, instruction=instruction),
            self.results.put, lambda kind, text: self.refusals.put((kind, text)), self.bugs.put, lambda: self.time,
        )  # fmt: skip
        self.loop.want(True)

    def infer(self, observation, options, seed, previous=None):
        self.seeds.append(seed)
        self.entered.put(observation)
        if self.leave is not None:
            self.leave.get(timeout=10.0)
        return SimpleNamespace(
            actions=np.zeros((10, 7)), dt=DT, timings_ms={"denoise": 1.0}, predicted={}, stamp=observation.stamp
        )

    def targets(self, actions, q_command):
        return JointTargets(np.tile(q_command, (len(actions), 1)), np.zeros(len(actions)))

    def frame(self, time: float) -> None:
        self.time = time
        self.history.add(time - 0.01, np.full(6, time))
        self.history.add(time, np.full(6, time))
        self.buffer.add("front", PICTURE, time)
        self.loop.notify()

    def result(self):
        return self.results.get(timeout=10.0)


@pytest.fixture
def bench():
    made = Bench()
    yield made
    made.loop.close()


def test_looks_again_after_the_steps_to_execute_and_not_before(bench):
    bench.frame(100.0)
    assert bench.result().stamp == 100.0
    for time in (100.1, 100.2, 100.3):
        bench.frame(time)
    bench.frame(100.4)
    assert bench.result().stamp == 100.4
    assert bench.results.empty() and len(bench.seeds) == 2


def test_targets_start_from_what_was_commanded_at_the_observation(bench):
    bench.frame(100.0)
    np.testing.assert_array_equal(bench.result().targets.q[0], np.full(6, 100.0))


def test_latency_counts_from_the_frame(bench):
    bench.leave = queue.Queue()
    bench.frame(100.0)
    bench.entered.get(timeout=10.0)
    bench.time = 100.3
    bench.leave.put(None)
    timings = bench.result().timings_ms
    assert timings["frame_to_trajectory"] == pytest.approx(300.0)
    assert timings["total"] == pytest.approx(300.0)


def test_an_inference_longer_than_the_history_still_starts_from_the_right_command(bench):
    bench.leave = queue.Queue()
    bench.frame(100.0)
    bench.entered.get(timeout=10.0)
    bench.time = 105.0
    for time in (102.0, 103.0, 105.0):
        bench.history.add(time, np.full(6, time))
    bench.leave.put(None)
    np.testing.assert_array_equal(bench.result().targets.q[0], np.full(6, 100.0))


@pytest.mark.parametrize("event", ["hold and engage again", "restart"])
def test_a_chunk_that_was_overtaken_by_events_is_dropped(bench, event):
    bench.leave = queue.Queue()
    bench.frame(100.0)
    bench.entered.get(timeout=10.0)
    bench.time = 100.05
    if event == "restart":
        bench.loop.restart()
    else:
        bench.loop.want(False)
        bench.loop.want(True)
    bench.leave.put(None)
    bench.frame(100.1)
    bench.leave.put(None)
    assert bench.result().stamp == 100.1
    assert bench.loop.superseded == 1


def test_seeds_differ_between_chunks_and_repeat_with_the_base_seed():
    seeds = {}
    for run, base in (("a", 3), ("b", 3), ("c", 4)):
        bench = Bench(execute_steps=1, base_seed=base)
        for k in range(3):
            bench.frame(100.0 + DT * k)
            bench.result()
        seeds[run] = bench.seeds
        bench.loop.close()
    assert seeds["a"] == seeds["b"] != seeds["c"]
    assert len(set(seeds["a"])) == 3


def test_a_camera_that_falls_silent_is_told(bench):
    bench.frame(100.0)
    bench.result()
    bench.time = 102.0
    kind, text = bench.refusals.get(timeout=10.0)
    assert kind == "stale" and "2.00 s old" in text


def test_without_commanded_joints_nothing_is_inferred(bench):
    bench.history.clear()
    bench.buffer.add("front", PICTURE, 100.0)
    bench.loop.notify()
    kind, text = bench.refusals.get(timeout=10.0)
    assert kind == "command" and "arbiter_node" in text
    assert bench.seeds == []


def test_a_bug_does_not_end_the_thread(bench):
    targets = bench.targets
    bench.targets = None  # not callable: a bug
    bench.frame(100.0)
    assert isinstance(bench.bugs.get(timeout=10.0), TypeError)
    bench.targets = targets
    bench.frame(100.1)
    assert bench.result().stamp == 100.1


# -- options that change while it runs ---------------------------------------------------------------


def past(bench):
    """Note what the bench is given as the chunk in force."""
    given = []
    infer = bench.infer
    bench.infer = lambda seen, options, seed, previous: given.append(previous) or infer(seen, options, seed)
    return given


def test_the_chunk_in_force_goes_along(bench):
    given = past(bench)
    bench.frame(100.0)
    first = bench.result()
    bench.frame(100.4)
    bench.result()
    assert given == [None, first.chunk]


@pytest.mark.parametrize("event", ["instruction", "engage", "unusable chunk", "bug"])
def test_a_chunk_is_no_longer_in_force(bench, event):
    given = past(bench)
    bench.frame(100.0)
    bench.result()
    if event == "instruction":
        bench.loop.restart()
    elif event == "engage":
        bench.loop.want(False)
        bench.loop.want(True)
    else:
        targets, error = bench.targets, {"unusable chunk": UnreachableTarget("out of reach"), "bug": KeyError("no")}
        bench.targets = lambda *_: (_ for _ in ()).throw(error[event])
        bench.frame(100.4)
        (bench.refusals if event == "unusable chunk" else bench.bugs).get(timeout=10.0)
        bench.targets = targets
    bench.frame(100.5)
    bench.result()
    assert given[-1] is None


@pytest.mark.parametrize(
    ("cut", "late", "steps"), [(True, 0.0, 6), (True, 0.45, 6), (True, 0.65, None), (False, 0.0, None)]
)
def test_a_chunk_is_cut_before_a_step_out_of_reach_that_is_still_to_come(bench, cut, late, steps):
    """Step 6 of 10 is out of reach; what was due before the chunk came does not count."""
    targets = bench.targets

    def short(actions, q_command):
        if len(actions) > 6:
            raise UnreachableTarget("step 6: out of reach", 6)
        return targets(actions, q_command)

    bench.targets, bench.settings = short, replace(bench.settings, cut=cut)
    infer = bench.infer

    def slow(*given):
        bench.time += late
        return infer(*given)

    bench.infer = slow
    bench.frame(100.0)
    if steps is None:
        assert "out of reach" in bench.refusals.get(timeout=10.0)[1]
    else:
        assert len(bench.result().targets.q) == steps


def test_new_options_are_warmed_up_before_they_meet_an_observation(bench):
    events = []
    bench.loop._warm_up = lambda options: events.append(("warm up", options))
    infer = bench.infer
    bench.infer = lambda seen, options, *rest: events.append(("infer", options)) or infer(seen, None, *rest)
    bench.frame(100.0)
    bench.result()
    bench.settings = replace(bench.settings, options="new")
    bench.loop.options_changed()
    bench.frame(100.4)
    bench.result()
    assert events == [("infer", None), ("warm up", "new"), ("infer", "new")]


def test_options_that_cannot_be_warmed_up_are_told_and_do_not_end_the_thread(bench):
    def refuse(options):
        raise ConfigError("no such decoder")

    bench.loop._warm_up = refuse
    bench.loop.options_changed()
    assert bench.refusals.get(timeout=10.0) == ("ConfigError", "no such decoder")
    bench.frame(100.0)
    assert bench.result().stamp == 100.0


def test_the_steps_that_were_due_meanwhile_are_counted(bench):
    bench.leave = queue.Queue()
    bench.frame(100.0)
    bench.entered.get(timeout=10.0)
    bench.time = 100.25
    bench.leave.put(None)
    assert bench.result().played == 2
