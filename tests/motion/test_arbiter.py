from __future__ import annotations

import itertools

import numpy as np
import pytest
from motion.rig import Rig

from udvla_ros.motion.arbiter import Arbiter
from udvla_ros.motion.exchange import ArbiterOptions
from udvla_ros.motion.guards import GUARDS
from udvla_ros.motion.modes import SOURCES, TRANSITIONS, Mode
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.motion.stitch import StitchOptions
from udvla_ros.motion.trajectory import Trajectory

EVENTS = {event for _, event in TRANSITIONS}


@pytest.fixture
def rig(ur5e):
    return Rig(ur5e)


def along(rig, speed: float = 0.5, joint: int = 0, age: float = 0.0, count: int = 8):
    """Return a chunk that moves one joint at ``speed`` rad/s from the present command."""
    steps = speed * 0.1 * np.arange(1, count + 1)[:, None] * np.eye(6)[joint]
    return rig.chunk(rig.q + steps, age=age)


def moving(rig, source: str = "policy", seconds: float = 0.3):
    """Engage a source and let it move for a while."""
    rig.act("engage", source)
    assert rig.offer(source, along(rig)).accepted
    rig.wait(seconds)
    assert not rig.arbiter.plan.at_rest(rig.now)


def test_the_table_is_closed_and_a_stop_works_from_everywhere():
    assert set(GUARDS) <= EVENTS
    for mode in Mode:
        assert TRANSITIONS[mode, "stop"] is Mode.STOPPED
        leaves = {event for (at, event), to in TRANSITIONS.items() if at is mode and to is not mode}
        assert leaves == {"reset"} if mode is Mode.STOPPED else leaves
    into_policy = {event for (_, event), to in TRANSITIONS.items() if to is Mode.POLICY}
    assert into_policy == {"engage_policy"}, "the policy must only ever be engaged on purpose"


@pytest.mark.parametrize(("mode", "event"), list(itertools.product(Mode, sorted(EVENTS))))
def test_every_pair_of_mode_and_event_does_what_the_table_says(rig, mode, event):
    arbiter = rig.arbiter
    {"HOLD": lambda: None, "TELEOP": lambda: rig.act("engage", "teleop"), "POLICY": lambda: rig.act("engage", "policy"),
     "STOPPED": lambda: rig.act("stop", "first")}[mode.value]()  # fmt: skip
    assert arbiter.mode is mode
    rig.wait(0.1)
    verdict = {
        "engage_policy": lambda: rig.act("engage", "policy"),
        "engage_teleop": lambda: rig.act("engage", "teleop"),
        "touch": lambda: rig.offer("teleop", along(rig)),
        "hold": lambda: rig.act("hold"),
        "stop": lambda: rig.act("stop", "second"),
        "reset": lambda: rig.act("reset"),
        "silence": lambda: rig.wait(2.2),
        "blind": lambda: (setattr(rig, "blind", True), rig.wait(1.2)),
        "hand_over": lambda: rig.arbiter.hand_over("asked for", rig.now),
        "impeded": lambda: (rig.arbiter.impede("scaling", "at half speed", rig.now), rig.send()),
        "fault": lambda: rig.arbiter._change("fault", "a fault of the filter", rig.now),
        "contested": lambda: [rig.arbiter.contest(source, "two writers", rig.now) for source in SOURCES],
    }[event]()
    if event == "touch" and mode is Mode.TELEOP:
        assert verdict.accepted
    expected = TRANSITIONS.get((mode, event), mode)
    assert arbiter.mode is expected
    if event in ("engage_policy", "engage_teleop", "hold", "reset"):
        assert verdict.accepted == ((mode, event) in TRANSITIONS)
        assert verdict.reason


def test_nothing_moves_before_joint_states_at_rest(ur5e):
    arbiter = Arbiter(ur5e)
    assert not arbiter.engage("policy", 1.0).accepted
    assert "shoulder_pan_joint" in arbiter.engage("policy", 1.0).reason
    still = np.zeros(6)
    arbiter.observe(ur5e.joints, ur5e.home, still + 0.5, 1.1)
    arbiter.observe([ur5e.gripper.joint], [0.2], None, 1.1)  # grippers publish on their own
    assert arbiter.plan is None and "moving" in arbiter.engage("policy", 1.1).reason
    arbiter.observe(ur5e.joints, ur5e.home, still, 1.2)
    np.testing.assert_allclose(arbiter.plan.state(1.2).q, ur5e.home)
    assert arbiter.plan.gripper_at(1.2) == 0.2
    assert arbiter.take(1.2) is None, "the controller already holds the arm where it is"
    assert [event.kind for event in arbiter.tick(1.2)] == ["ready"]
    arbiter.observe(ur5e.joints, ur5e.home + 0.01, still, 1.3)
    np.testing.assert_allclose(arbiter.plan.state(1.3).q, ur5e.home), "the measured arm must not drag the command"


def test_joint_speeds_are_derived_where_they_are_not_published(ur5e):
    arbiter = Arbiter(ur5e)
    names = ur5e.command_names
    arbiter.observe(names, [*ur5e.home, 0.0], None, 1.0)
    arbiter.observe(names, [*(ur5e.home + 0.01), 0.0], [], 1.1)
    assert arbiter.plan is None
    arbiter.observe(names, [*(ur5e.home + 0.01), 0.0], [], 1.2)
    assert arbiter.plan is not None


def test_offers_are_refused_unless_engaged(rig):
    verdict = rig.offer("policy", along(rig))
    assert not verdict.accepted and verdict.kind == "not_engaged" and "engage policy" in verdict.reason
    assert rig.offer("ghost", along(rig)).kind == "unknown_source"
    assert not rig.act("engage", "ghost").accepted
    assert rig.arbiter.counts == {"refused/not_engaged": 1, "refused/unknown_source": 1}


def test_teleop_takes_over_at_once_without_a_step(rig):
    moving(rig)
    before = rig.arbiter.plan.state(rig.now)
    verdict = rig.offer("teleop", along(rig, speed=-0.4))
    assert verdict.accepted and rig.arbiter.mode is Mode.TELEOP and "took over" in rig.arbiter.mode_reason
    for old, new in zip(before, verdict.plan.state(rig.now), strict=True):
        np.testing.assert_allclose(new, old, atol=1e-6)
    assert rig.offer("policy", along(rig)).kind == "not_engaged"
    rig.settle()
    rig.judge()


GARBAGE = {
    "non_finite": lambda rig: {"positions": np.full((1, 7), np.nan)},
    "unknown_joint": lambda rig: {"names": ["a", *rig.robot.command_names[1:]]},
    "stale": lambda rig: {"stamp": rig.now - 60.0},
    "empty": lambda rig: {"times": [], "positions": np.zeros((0, 7))},
    "jump": lambda rig: {"positions": np.append(rig.q, 0.0)[None] + np.eye(7)[0]},
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_is_no_hand(rig, kind):
    moving(rig)
    plan = rig.arbiter.plan
    here = np.append(rig.q, 0.0)[None]
    good = {"names": rig.robot.command_names, "times": [0.1], "positions": here, "stamp": rig.now}
    verdict = rig.offer("teleop", Trajectory(**good | GARBAGE[kind](rig)))
    assert verdict.kind == kind and rig.arbiter.mode is Mode.POLICY and rig.arbiter.plan is plan
    rig.act("hold")
    rig.wait(1.0)
    good = good | {"positions": np.append(rig.q, 0.0)[None], "stamp": rig.now}
    rig.offer("teleop", Trajectory(**good | GARBAGE[kind](rig)))
    assert rig.arbiter.mode is Mode.HOLD
    assert rig.offer("teleop", along(rig, 0.1)).accepted, "and hinders no hand"


@pytest.mark.parametrize("points", [1, 3])
def test_points_that_are_all_due_at_once_are_no_end_of_the_arbiter(rig, points):
    rig.act("engage", "policy")
    for begin in (2e-4, 9e-4, 1e-3):
        times = begin + 1.5e-4 * np.arange(points)
        verdict = rig.offer("policy", Trajectory(rig.robot.joints, times, np.tile(rig.q, (points, 1)), None, rig.now))
        assert verdict.accepted or verdict.kind == "elapsed"
        rig.wait(0.1)
    rig.settle()
    rig.judge()


def test_a_fault_of_the_filter_is_a_refusal_and_the_arm_is_braked(rig, monkeypatch):
    moving(rig)
    monkeypatch.setattr(rig.arbiter.safety, "plan", lambda *_: [][0])
    verdict = rig.offer("policy", along(rig))
    assert verdict.kind == "fault" and "IndexError" in verdict.reason and rig.arbiter.mode is Mode.HOLD
    rig.wait(0.3)
    rig.judge_rest()
    rig.judge()


def test_the_policy_comes_back_only_on_purpose_and_with_what_it_saw_since(rig):
    moving(rig)
    rig.offer("teleop", along(rig))
    seen_before = along(rig)
    rig.wait(1.5)
    assert rig.arbiter.mode is Mode.HOLD, "teleop went silent"
    assert rig.offer("policy", along(rig)).kind == "not_engaged"
    rig.act("engage", "policy")
    assert rig.offer("policy", seen_before).kind in ("before_engagement", "elapsed")
    assert rig.offer("policy", along(rig, age=0.05)).kind == "before_engagement"
    assert rig.offer("policy", along(rig)).accepted


def test_teleop_held_down_during_hold_must_be_let_go_first(rig):
    rig.act("engage", "teleop")
    for _ in range(5):
        assert rig.offer("teleop", along(rig, 0.1)).accepted
        rig.wait(0.05)
    rig.act("hold")
    for _ in range(10):
        assert rig.offer("teleop", along(rig, 0.1)).kind == "not_engaged"
        rig.wait(0.05)
    rig.wait(0.4)
    assert rig.offer("teleop", along(rig, 0.1)).accepted
    assert rig.arbiter.mode is Mode.TELEOP


def test_nobody_is_followed_for_longer_than_the_silence_that_ends_it(rig):
    """One point far ahead in time, then nothing: the arm is braked, wherever it is on its way."""
    rig.act("engage", "teleop")
    assert rig.offer("teleop", Trajectory(rig.robot.joints, [29.0], rig.q[None] + 0.4, None, rig.now)).accepted
    assert rig.arbiter.plan.end - rig.now < 2.0
    rig.wait(1.0)
    assert rig.arbiter.mode is Mode.HOLD
    rig.judge_rest()
    assert rig.act("engage", "policy").accepted
    assert rig.offer("policy", along(rig, speed=0.5, count=60)).accepted
    events = rig.wait(2.5)
    rig.judge_rest()
    assert rig.arbiter.mode is Mode.HOLD
    assert [e.text.split(":")[0] for e in events if e.kind == "mode"] == ["POLICY", "HOLD"]
    rig.judge()


def test_stop_is_latched_the_first_reason_stays_and_only_reset_leaves_it(rig):
    moving(rig)
    rig.act("stop", "red button")
    rig.act("stop", "second thoughts")
    assert rig.arbiter.mode_reason == "red button"
    assert "coming to rest" in rig.act("reset").reason
    assert not rig.act("engage", "policy").accepted and rig.offer("policy", along(rig)).kind == "not_engaged"
    rig.wait(0.3)
    rig.judge_rest()
    rig.wait(3.0)
    assert rig.arbiter.mode is Mode.STOPPED
    assert rig.act("reset").accepted and rig.arbiter.mode is Mode.HOLD
    rig.judge()


def test_reset_waits_for_the_measured_arm(rig):
    moving(rig)
    rig.blind = True
    rig.act("stop", "button")
    rig.wait(0.5)
    assert not rig.act("reset").accepted, "not seen at rest yet"
    rig.blind = False
    rig.wait(0.02)
    rig.arbiter.observe(rig.robot.joints, rig.q, np.full(6, 0.3), rig.now)
    assert "moving" in rig.act("reset").reason
    rig.wait(0.02)
    assert rig.act("reset").accepted


def test_reset_starts_from_an_arm_that_was_moved_by_hand_and_keeps_a_small_lag(rig, ur5e):
    for shift, adopted in ((0.01, False), (0.2, True)):
        rig.act("stop", "button")
        rig.now += 0.02
        rig.arbiter.observe([*ur5e.joints, ur5e.gripper.joint], [*(rig.q + shift), 0.0], [0.0] * 7, rig.now)
        before = rig.q
        assert rig.act("reset").accepted
        assert np.abs(rig.q - before).max() == pytest.approx(shift if adopted else 0.0)


def test_reset_does_not_open_a_gripper_that_holds_something(ur5e):
    for measured, expected in ((0.35, 0.8), (0.0, 0.0)):
        rig = Rig(ur5e)
        rig.act("engage", "policy")
        rig.offer("policy", rig.chunk(np.repeat(rig.q[None], 4, axis=0), gripper=1.0))
        rig.wait(1.0)
        rig.act("stop", "button")
        rig.now += 0.02
        rig.arbiter.observe([*ur5e.joints, ur5e.gripper.joint], [*rig.q, measured], [0.0] * 7, rig.now)
        assert rig.act("reset").accepted
        assert rig.arbiter.plan.gripper_at(rig.now) == pytest.approx(expected)


def test_a_lock_stops_and_forbids_reset_while_it_is_held(rig):
    moving(rig)
    rig.arbiter.lock("emergency stop", True, rig.now)
    rig.send()
    rig.wait(0.5)
    rig.judge_rest()
    assert "emergency stop is still pressed" in rig.act("reset").reason
    rig.arbiter.lock("emergency stop", False, rig.now)
    assert rig.arbiter.mode is Mode.STOPPED, "releasing it must not resume"
    assert rig.act("reset").accepted


def test_hold_brakes_and_keeps_out_the_policy(rig):
    moving(rig)
    rig.act("hold")
    rig.wait(0.2)
    rig.judge_rest()
    assert rig.offer("policy", along(rig)).kind == "not_engaged"


def test_joint_states_that_stop_coming_bring_the_arm_to_rest(rig):
    moving(rig)
    rig.blind = True
    for _ in range(8):
        rig.offer("policy", along(rig))
        rig.wait(0.2)
    assert rig.arbiter.mode is Mode.HOLD and "no joint states" in rig.arbiter.mode_reason
    rig.judge_rest()
    assert "no joint states" in rig.act("engage", "policy").reason


@pytest.mark.parametrize("jump", [-30.0, -0.2, 1.5, 3600.0])
def test_a_clock_jump_stops_and_sends_nothing(rig, jump):
    moving(rig)
    before, plan = rig.arbiter.plan.state(rig.now), rig.arbiter.plan
    events = rig.arbiter.tick(rig.now + jump)
    assert rig.arbiter.mode is Mode.STOPPED and "clock jumped" in rig.arbiter.mode_reason
    assert "clock" in [event.kind for event in events]
    assert rig.arbiter.take(rig.now) is None, "how much time passed is unknown: the controller ends the plan it has"
    np.testing.assert_allclose(rig.arbiter.plan.state(rig.now + jump).q, before.q, atol=1e-9)
    assert rig.arbiter.plan.rest_time == plan.rest_time
    later = rig.now + jump + 2.0
    for t in np.arange(rig.now + jump, later, 0.1):
        rig.arbiter.observe([*rig.robot.joints, rig.robot.gripper.joint], [*plan.q[-1], 0.0], [0.0] * 7, t)
    assert rig.arbiter.reset(later).accepted


def test_a_clock_that_trembles_is_not_a_jump(rig):
    moving(rig)
    rig.arbiter.tick(rig.now - 0.01)
    assert rig.arbiter.mode is Mode.POLICY


def test_time_must_be_a_number(rig):
    with pytest.raises(ValueError, match="now is nan"):
        rig.arbiter.tick(float("nan"))


def test_older_chunks_are_refused(rig):
    rig.act("engage", "policy")
    rig.wait(0.3)
    assert rig.offer("policy", along(rig)).accepted
    assert rig.offer("policy", along(rig, age=0.1)).kind == "out_of_order"
    assert rig.offer("policy", along(rig)).accepted, "the same stamp again replaces the chunk"


def test_speed_changes_only_at_rest_and_holds_for_what_follows(rig):
    moving(rig)
    assert not rig.arbiter.set_speed(0.1, rig.now).accepted
    rig.act("hold")
    rig.wait(0.5)
    assert not rig.arbiter.set_speed(0.0, rig.now).accepted and not rig.arbiter.set_speed(1.5, rig.now).accepted
    assert rig.arbiter.set_speed(0.1, rig.now).accepted
    rig.act("engage", "policy")
    verdict = rig.offer("policy", along(rig, speed=0.6, joint=5))
    assert "slowed" in verdict.interventions
    assert np.abs(verdict.plan.qd).max() <= 0.314 + 1e-6


def test_a_protective_stop_is_noticed_by_the_following_error(ur5e):
    rig = Rig(ur5e, options=ArbiterOptions(following_error=0.1))
    rig.act("engage", "policy")
    rig.offer("policy", along(rig))
    rig.blind = True
    stuck = rig.q
    for _ in range(10):
        rig.wait(0.05)
        rig.arbiter.observe(ur5e.joints, stuck, np.zeros(6), rig.now)
        rig.send()
    assert rig.arbiter.mode is Mode.STOPPED and "shoulder_pan_joint is 0.1" in rig.arbiter.mode_reason


def test_a_dry_run_plans_and_sends_nothing(ur5e):
    rig = Rig(ur5e, options=ArbiterOptions(dry_run=True))
    rig.act("engage", "policy")
    assert rig.offer("policy", along(rig)).accepted
    rig.wait(0.3)
    assert rig.controller.switches == 0
    assert not rig.arbiter.plan.at_rest(rig.now)


def test_what_happened_is_told_and_counted(rig):
    rig.act("engage", "policy")
    rig.offer("policy", along(rig, speed=2.5))
    rig.offer("policy", rig.chunk(np.full((2, 6), np.nan)))
    kinds = [event.kind for event in rig.arbiter.tick(rig.now)]
    assert kinds == ["mode", "intervention", "refused"]
    assert rig.arbiter.tick(rig.now) == []
    assert rig.arbiter.counts["refused/non_finite"] == 1 and rig.arbiter.counts["intervention/slowed"] == 1


def test_what_was_commanded_is_remembered(rig):
    moving(rig, seconds=0.5)
    time, q, hand = (x[60] for x in rig.controller.written())
    state, gripper = rig.arbiter.past(time)
    np.testing.assert_allclose(state.q, q, atol=1e-9)
    assert gripper == pytest.approx(hand)
    assert rig.arbiter.past(rig.now - 100.0) is None


def test_options_come_from_the_robot_file(ur5e):
    from dataclasses import replace

    slow = replace(ur5e, arbiter={"policy_timeout": 9.0, "max_age": 8.0, "following_error": 0.2})
    arbiter = Arbiter(slow)
    assert arbiter.sources["policy"].timeout == 9.0 and arbiter.sources["teleop"] == SOURCES["teleop"]
    assert arbiter.safety.admission.max_age == 8.0 and arbiter.options.following_error == 0.2


@pytest.mark.parametrize("latency", [0.0, 0.02])
def test_a_stream_of_short_horizons_is_followed_without_lag(ur5e, latency):
    """Teleoperation: at 50 Hz, four points up to 0.2 s ahead. A blend at each message would only add its delay."""
    rig = Rig(ur5e)
    rig.act("engage", "teleop")
    begin, ahead = rig.now, np.array([0.05, 0.1, 0.15, 0.2])

    def hand(t: float) -> np.ndarray:
        return ur5e.home + 0.3 * np.eye(6)[0] * np.sin(np.pi * (t - begin)) * min(1.0, t - begin)

    while rig.now < begin + 4.0:
        stamp = rig.now
        rig.wait(latency)
        points = np.stack([hand(stamp + t) for t in ahead])
        assert rig.offer("teleop", Trajectory(ur5e.joints, ahead, points, None, stamp)).accepted
        rig.wait(0.02 - latency if latency < 0.02 else 0.02)
    times, played, _ = rig.controller.written(begin + 1.0)
    wanted = np.array([hand(t)[0] for t in times])
    assert np.abs(played[:, 0] - wanted).max() < 0.003
    rig.settle()
    rig.judge()


def test_two_writers_lose_the_arm_and_it_must_be_engaged_anew(rig):
    moving(rig)
    rig.arbiter.contest("policy", "two writers on policy/joint_trajectory (a, b)", rig.now)
    rig.send()
    assert rig.arbiter.mode is Mode.HOLD and "two writers" in rig.arbiter.mode_reason
    rig.wait(0.3)
    rig.judge_rest()
    assert rig.act("engage", "policy").kind == "two_writers", "the second was heard a moment ago"
    assert rig.offer("policy", along(rig)).kind == "two_writers"
    assert rig.act("engage", "teleop").accepted, "the others are not concerned"
    rig.act("hold")
    rig.wait(2.5)
    assert rig.act("engage", "policy").accepted
    rig.judge()


def test_a_lock_that_must_go_on_being_heard_counts_as_pressed_when_it_is_silent(ur5e):
    rig = Rig(ur5e, options=ArbiterOptions(lock_timeout=0.3))
    moving(rig, seconds=0.2)
    assert rig.arbiter.mode is Mode.POLICY, "never heard, it does not count"
    rig.arbiter.lock("emergency stop", False, rig.now)
    for _ in range(4):
        rig.offer("policy", along(rig))
        rig.wait(0.2)
        rig.arbiter.lock("emergency stop", False, rig.now)
    assert rig.arbiter.mode is Mode.POLICY
    rig.wait(0.4)
    assert rig.arbiter.mode is Mode.STOPPED and "silent" in rig.arbiter.mode_reason
    rig.wait(0.5)
    assert "emergency stop is silent" in rig.act("reset").reason
    rig.arbiter.lock("emergency stop", True, rig.now)
    assert "still pressed" in rig.act("reset").reason
    rig.arbiter.lock("emergency stop", False, rig.now)
    assert rig.arbiter.mode is Mode.STOPPED and rig.act("reset").accepted
    rig.judge()


def test_an_arm_at_rest_away_from_its_command_is_not_engaged(ur5e):
    rig = Rig(ur5e, options=ArbiterOptions(following_error=1.0))
    rig.blind = True
    away = rig.q + 0.4 * np.eye(6)[1]
    rig.wait(1.0)
    rig.arbiter.observe([*ur5e.joints, ur5e.gripper.joint], [*away, 0.0], [0.0] * 7, rig.now)
    for verdict in (rig.act("engage", "policy"), rig.act("engage", "teleop")):
        assert not verdict.accepted and "shoulder_lift_joint is 0.40 rad from its command" in verdict.reason
    assert not rig.offer("teleop", along(rig)).accepted
    rig.act("stop", "moved by hand")
    assert rig.act("reset").accepted and rig.act("engage", "policy").accepted
    np.testing.assert_allclose(rig.q, away)


@pytest.mark.parametrize("step", [0.2, -0.04, -5.0, 60.0])
def test_a_clock_that_was_set_in_mid_motion_moves_the_plan_along_with_it(rig, step):
    moving(rig)
    rig.set_clock(step, told=True)
    assert rig.arbiter.mode is Mode.STOPPED and f"jumped by {step:+.2f}" in rig.arbiter.mode_reason
    wanted = rig.controller.state[0]
    np.testing.assert_allclose(rig.arbiter.plan.state(rig.now).q, wanted, atol=1e-9)
    rig.wait(1.0)
    np.testing.assert_allclose(rig.q, rig.controller.state[0], atol=1e-9)
    rig.judge_rest()
    assert rig.act("reset").accepted == (step == 0.2)
    if step != 0.2:
        assert "synchronise the machines' clocks" in rig.act("reset").reason
        rig.skew = 0.0
        rig.controller.shift(step)
        rig.wait(2.0)
        assert rig.act("reset").accepted
    rig.judge()


@pytest.mark.parametrize("act", ["hold", "stop", "stall"])
def test_after_a_step_of_the_clock_nothing_is_sent_before_a_joint_state_tells_whose_time_it_is(rig, act):
    moving(rig)
    rig.set_clock(40.0, told=True)
    sent = rig.controller.switches
    {"hold": lambda: rig.act("hold"), "stop": lambda: rig.act("stop", "again"), "stall": lambda: rig.stall(0.4)}[act]()
    rig.controller.play(rig.now - rig.skew + 0.01)
    assert rig.controller.switches == sent
    rig.wait(2.0)
    rig.judge_rest()
    rig.judge()


def test_an_arbiter_that_stood_still_says_so_and_knows_where_the_arm_is(rig):
    moving(rig)
    rig.stall(1.6)
    assert rig.arbiter.mode is Mode.STOPPED and "the arbiter stalled for 1.6 s" in rig.arbiter.mode_reason
    np.testing.assert_allclose(rig.q, rig.controller.state[0], atol=1e-9)
    rig.wait(0.5)
    rig.judge_rest()
    assert rig.act("reset").accepted
    rig.judge()


def test_a_simulated_clock_that_has_not_begun_is_no_jump(ur5e):
    arbiter = Arbiter(ur5e)
    arbiter.tick(0.0)
    arbiter.tick(1.7e9)
    assert arbiter.mode is Mode.HOLD


def test_a_dry_run_shows_what_it_keeps_back(ur5e):
    arbiter = Arbiter(ur5e, ArbiterOptions(dry_run=True))
    rig = Rig(ur5e)
    rig.arbiter = arbiter
    rig.observe()
    rig.act("engage", "policy")
    plan = arbiter.offer("policy", along(rig), rig.now).plan
    assert arbiter.take(rig.now) is None
    np.testing.assert_array_equal(arbiter.withheld.q[-1], plan.q[-1])
    assert [arbiter.take(rig.now) for _ in range(3)] == [None] * 3 and arbiter.withheld is None


@pytest.mark.parametrize("rate", [100.0, 200.0, 500.0])
@pytest.mark.parametrize("delay", [0.0, 0.018])
def test_a_message_that_takes_less_than_the_lead_changes_nothing_that_was_played(rate, delay):
    """Whatever is switched to, stops included, at the limits of a real arm: nobody can tell that there was a switch."""
    robot = RobotDescription.load("ur5e")
    rig = Rig(robot, stitch=StitchOptions(lead=0.02), controller={"rate": rate, "delay": delay})
    moving(rig)
    for speed in (0.8, -0.5, 0.9):
        assert rig.offer("teleop", along(rig, speed=speed)).accepted
        rig.wait(0.12)
    assert rig.act("engage", "policy").accepted
    assert rig.offer("policy", along(rig, speed=0.6, joint=2)).accepted
    rig.wait(0.3)
    rig.act("stop", "button")
    rig.wait(1.0)
    rig.judge_rest()
    rig.judge()


@pytest.mark.parametrize("stop", [False, True])
def test_a_controller_that_holds_the_arm_a_little_off_is_given_time(ur5e, stop):
    """Started anew it holds the measured arm, up to ``lag`` from the command: no step when commands begin."""
    rig = Rig(ur5e, stitch=StitchOptions(lead=0.02))
    off = ur5e.home + 0.04 * np.array([1, -1, 1, 1, -1, 1])
    rig.controller.put(off)
    rig.wait(0.1)
    rig.act("engage", "policy")
    assert rig.offer("policy", along(rig)).accepted
    for _ in range(3):
        rig.wait(0.04)
        assert rig.offer("policy", along(rig, age=0.03)).accepted
    if stop:
        rig.act("stop", "button")
    rig.settle()
    rig.judge_rest()
    rig.judge()
    assert stop or rig.q[0] > ur5e.home[0] + 0.1


def test_an_arm_that_is_where_it_is_commanded_sets_out_at_once(rig):
    rig.act("engage", "policy")
    rig.offer("policy", along(rig))
    rig.wait(0.04)
    assert rig.controller.state[0][0] > rig.robot.home[0]


def test_a_hand_over_brakes_the_policy_and_is_nothing_to_others(rig):
    moving(rig)
    rig.arbiter.hand_over("monitor: what came was not foreseen", rig.now)
    assert (rig.arbiter.mode, rig.arbiter.mode_reason) == (Mode.HOLD, "monitor: what came was not foreseen")
    assert rig.offer("policy", along(rig)).kind == "not_engaged"
    rig.settle()
    rig.judge()
    rig.act("engage", "teleop")
    rig.arbiter.hand_over("late", rig.now)
    assert rig.arbiter.mode is Mode.TELEOP
