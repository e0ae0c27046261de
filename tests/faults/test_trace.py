"""The numbers of the fault suite, on made-up traces: a good one passes, and each thing that may go wrong shows."""

from __future__ import annotations

import numpy as np
import pytest

from udvla_ros.errors import ConfigError
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.proving.faults import trace as measures
from udvla_ros.proving.faults.report import Outcome, plot, table
from udvla_ros.proving.faults.scenarios import PASS, SCENARIOS, chosen
from udvla_ros.proving.faults.trace import Steps, Trace

ROBOT = RobotDescription.load("ur5e_sim")
HZ, FAULT = 100.0, 100.0


def made(end: float = 1.0, rest: float = 5.0, amplitude: float = 0.25) -> Trace:
    """Return a trace of a joint that sways from 2 s before the fault, and comes to rest ``end`` s after it."""
    t = np.arange(FAULT - 2.0, FAULT + rest, 1.0 / HZ)
    turn = np.pi * np.clip((t - (FAULT - 2.0)) / (2.0 + end), 0.0, 1.0)
    q = ROBOT.home + amplitude * np.outer(1.0 - np.cos(turn), np.eye(6)[0])
    rate = np.where((turn > 0) & (turn < np.pi), np.pi / (2.0 + end), 0.0)
    qd = amplitude * np.outer(np.sin(turn) * rate, np.eye(6)[0])
    trace = Trace(list(t + 1.7e9), list(t + 0.002), list(q), list(qd))
    trace.measured = [(float(at), float(np.abs(v).max())) for at, v in zip(t + 0.04, qd, strict=True)]
    trace.modes = [(FAULT - 2.0, "POLICY", "policy engaged"), (FAULT + 2.0, "HOLD", "silence")]
    trace.grants = [FAULT - 2.01]
    return trace


def index(trace: Trace, t: float) -> int:
    return int(np.searchsorted(trace.received, t))


def outcome(trace: Trace, scenario=SCENARIOS[0], **changes) -> Outcome:
    broken = measures.violations(trace, ROBOT)
    values = {
        "scenario": scenario, "rest": measures.time_to_rest(trace, FAULT), "step": measures.steps(trace, ROBOT),
        "violations": sum(broken.values()), "by_kind": broken, "resumed": measures.resumed(trace, FAULT),
        "moved_again": measures.moved_again(trace, FAULT), "mode": trace.modes[-1][1], "reason": "made up",
        "notes": {}, "curve": trace.speeds(), "modes": [(at - FAULT, m) for at, m, _ in trace.modes],
    }  # fmt: skip
    return Outcome(**values | changes)


def test_a_good_trace_has_no_faults():
    trace = made()
    good = outcome(trace)
    assert good.faults() == []
    assert good.rest["command"] == pytest.approx(1.0, abs=0.03)
    assert good.rest["command"] <= good.time_to_rest <= 1.05
    assert good.step.beyond == 0.0 and 0.0 < good.step.worst < 0.02
    assert good.row()["resumed_by_itself"] is False and good.row()["limit_violations"] == 0


@pytest.mark.parametrize("jump", [0.002, 0.3])
def test_a_jump_shows_as_a_step_beyond_the_limits(jump):
    trace = made()
    k = index(trace, FAULT + 0.3)
    trace.q[k:] = [q + jump for q in trace.q[k:]]
    step = measures.steps(trace, ROBOT)
    assert step.worst >= jump and step.beyond == pytest.approx(jump, abs=3e-4)
    assert any("step of" in line for line in outcome(trace).faults())


def test_a_late_tick_is_no_jump_but_a_jump_during_it_is():
    trace = made()
    k = index(trace, FAULT - 0.5)
    for values in (trace.stamps, trace.received, trace.q, trace.qd):
        del values[k : k + 8]
    assert measures.steps(trace, ROBOT).beyond == 0.0 and not measures.violations(trace, ROBOT)
    trace.q[k:] = [q + 0.1 for q in trace.q[k:]]
    assert measures.steps(trace, ROBOT).beyond > 0.05


@pytest.mark.parametrize("seconds", [30.0, -30.0, 0.4])
def test_a_clock_that_was_set_is_no_step_and_a_step_with_it_is(seconds):
    trace = made()
    k = index(trace, FAULT)
    trace.stamps[k:] = [t + seconds for t in trace.stamps[k:]]
    assert measures.steps(trace, ROBOT).beyond == 0.0
    trace.q[k:] = [q + 2.0 for q in trace.q[k:]]
    assert measures.steps(trace, ROBOT).beyond > 0.5


@pytest.mark.parametrize(
    ("kind", "spoil"),
    [
        ("non_finite", lambda q, qd: (q * np.nan, qd)),
        ("position", lambda q, qd: (q + 7.0, qd)),
        ("velocity", lambda q, qd: (q, qd + 4.0)),
        ("workspace", lambda q, qd: (q + np.array([0, 1.2, 0, 0, 0, 0]), qd)),
        ("acceleration", lambda q, qd: (q, qd + 0.5)),
        ("velocity_between", lambda q, qd: (q + 0.1, qd)),
    ],
)
def test_each_broken_limit_is_counted_under_its_name(kind, spoil):
    trace = made()
    assert measures.violations(trace, ROBOT) == {}
    k = index(trace, FAULT)
    trace.q[k], trace.qd[k] = spoil(trace.q[k], trace.qd[k])
    assert measures.violations(trace, ROBOT)[kind] >= 1
    assert outcome(trace).faults()


def test_an_arm_that_never_rests_has_no_time_to_rest():
    trace = made(end=30.0, amplitude=2.5)
    assert measures.time_to_rest(trace, FAULT) == {"command": None, "measured": None}
    assert "did not come to rest" in outcome(trace).faults() and outcome(trace).row()["time_to_rest_s"] is None


def test_the_measured_arm_counts_too():
    trace = made()
    trace.measured = [(t, 0.3 if t < FAULT + 3.0 else 0.0) for t, _ in trace.measured]
    assert outcome(trace).time_to_rest == pytest.approx(3.0, abs=0.1)


def test_what_moved_while_the_arbiter_was_silent_is_told_by_the_measured_arm():
    trace = made()
    begin, end = index(trace, FAULT), index(trace, FAULT + 2.0)
    for values in (trace.stamps, trace.received, trace.q, trace.qd):
        del values[begin:end]
    assert measures.time_to_rest(trace, FAULT)["command"] < 0.05
    assert outcome(trace).time_to_rest == pytest.approx(0.8, abs=0.2)  # slower than 0.05 rad/s is still


def test_a_source_that_comes_back_without_being_engaged_has_resumed():
    trace = made()
    trace.modes.append((FAULT + 3.0, "POLICY", "who knows"))
    assert "nobody engaged it" in measures.resumed(trace, FAULT)
    trace.grants.append(FAULT + 2.9)
    assert measures.resumed(trace, FAULT) == ""


def test_a_command_that_moves_again_in_hold_has_resumed():
    trace = made()
    k = index(trace, FAULT + 3.0)
    for j in range(k, len(trace.q)):
        trace.q[j] = trace.q[j] + 1e-4 * (j - k)
    assert "moved" in measures.resumed(trace, FAULT) and measures.moved_again(trace, FAULT)
    assert any("resumed" in line for line in outcome(trace).faults())


def test_a_policy_that_goes_on_within_its_engagement_moved_again_but_did_not_resume():
    trace = made()
    trace.modes = trace.modes[:1]
    k = index(trace, FAULT + 3.0)
    for j in range(k, len(trace.q)):
        trace.q[j] = trace.q[j] + 1e-4 * (j - k)
    assert measures.moved_again(trace, FAULT) and not measures.resumed(trace, FAULT)


def test_braking_after_the_arm_was_taken_away_is_no_resuming():
    trace = made()
    trace.modes[-1] = (FAULT + 0.1, "STOPPED", "stop")
    assert measures.resumed(trace, FAULT) == ""


def test_the_worst_of_repeats_counts_and_is_drawn(tmp_path):
    good, late = outcome(made()), outcome(made(end=1.15))
    bad = outcome(made(), step=Steps(0.2, 0.1))
    worst = Outcome.worst([good, late, bad])
    assert worst.time_to_rest == late.time_to_rest and worst.step.beyond == 0.1 and worst.repeats == 3
    assert worst.faults()
    text = table({"faults": [good.row(), worst.row()]})
    assert text.count("FAILED") == 1 and "policy killed" in text
    assert plot(tmp_path / "faults.png", [good, worst]).stat().st_size > 10_000


def test_modes_it_may_not_end_in_and_unsafe_notes_fail_it():
    assert any("ended in POLICY" in line for line in outcome(made(), mode="POLICY").faults())
    assert any("unsafe" in line for line in outcome(made(), notes={"unsafe": True}).faults())


def test_the_scenarios_name_steps_that_exist_and_parameters_of_the_relay():
    pytest.importorskip("rclpy")
    from udvla_ros.proving.rigs.fault_relay import TABLE
    from udvla_ros.proving.rigs.fault_runner import FaultRunner

    relayed = {entry.name for entry in TABLE}
    assert set(PASS) <= relayed and len({s.name for s in SCENARIOS}) == len(SCENARIOS) >= 11
    for scenario in SCENARIOS:
        assert scenario.ends and scenario.rest_within > 0
        for name, *given in (*scenario.steps, *scenario.undo):
            assert hasattr(FaultRunner, f"_do_{name}"), name
            if name == "relay":
                assert set(given[0]) <= relayed


def test_faults_are_chosen_by_name():
    assert [s.name for s in chosen("CAMERA", SCENARIOS)] == ["cameras frozen", "one camera gone"]
    assert len(chosen(None, SCENARIOS)) == len(SCENARIOS)
    with pytest.raises(ConfigError, match="policy killed"):
        chosen("nothing of the kind", SCENARIOS)


def test_a_trace_is_read_while_it_grows():
    trace = made()
    before = trace.speeds()
    trace.stamps.append(trace.stamps[-1] + 0.01)
    trace.received.append(trace.received[-1] + 0.01)
    trace.q.append(trace.q[-1])  # its velocities come in a moment
    assert all(np.array_equal(a, b) for a, b in zip(trace.speeds(), before, strict=True))
