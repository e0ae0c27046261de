"""The recorder's states: one table, and nothing happens that is not in it."""

from __future__ import annotations

import pytest

from udvla_ros.rollouts.bags.auto import Automatic
from udvla_ros.rollouts.bags.states import TRANSITIONS, State, after, why_not

EVENTS = {event for _, event in TRANSITIONS}


def test_every_state_is_reached_and_left():
    assert {state for state, _ in TRANSITIONS} == set(State) == set(TRANSITIONS.values())


def test_recording_ends_in_saving_and_saving_in_idle_only():
    assert {after(State.RECORDING, event) for event in EVENTS} == {State.SAVING, None}
    assert {after(State.SAVING, event) for event in EVENTS} == {State.IDLE, None}


@pytest.mark.parametrize(
    ("state", "event"),
    [
        (State.RECORDING, "start"), (State.RECORDING, "snapshot"), (State.SAVING, "start"),
        (State.SAVING, "stop_success"), (State.IDLE, "discard"), (State.IDLE, "saved"), (State.IDLE, "fault"),
    ],
)  # fmt: skip
def test_the_rest_is_refused_with_what_to_do(state, event):
    assert after(state, event) is None
    assert "~/" in why_not(state)


def modes(auto: Automatic, *steps: tuple[float, str]) -> list[str]:
    """Let modes come and time pass; returns what was due, doing it as the node does."""
    done = []
    for now, mode in steps:
        if mode:
            auto.hear(mode, now)
        due = auto.due(now)
        if due == "start":
            auto.began(True)
        elif due == "stop":
            auto.ended()
        done.append(due)
    return done


def test_an_automatic_episode_lasts_as_long_as_the_policy_and_its_helper_have_the_arm():
    steps = [(0, "HOLD"), (1, "POLICY"), (2, "TELEOP"), (9, "POLICY"), (10, "HOLD"), (10.5, ""), (11, ""), (12, "")]
    assert modes(Automatic(settle=1.0), *steps) == ["", "start", "", "", "", "", "stop", ""]


def test_a_hand_back_within_the_settling_time_goes_on_with_the_episode():
    steps = [(0, "POLICY"), (1, "HOLD"), (1.5, "POLICY"), (3, ""), (4, "HOLD"), (5, "")]
    assert modes(Automatic(settle=1.0), *steps) == ["start", "", "", "", "", "stop"]


def test_a_stop_ends_it_at_once():
    assert modes(Automatic(settle=5.0), (0, "POLICY"), (1, "STOPPED"), (2, "")) == ["start", "stop", ""]
    assert modes(Automatic(settle=5.0), (0, "POLICY"), (1, "HOLD"), (2, "STOPPED")) == ["start", "", "stop"]


def test_what_a_person_began_or_ended_is_left_alone_until_the_policy_is_engaged_anew():
    auto = Automatic(settle=0.0)
    auto.began(automatically=False)
    assert modes(auto, (0, "POLICY"), (1, "HOLD"), (2, "POLICY")) == ["", "", ""]
    auto.ended()
    assert modes(auto, (3, ""), (4, "HOLD"), (5, "POLICY")) == ["", "", "start"]
    auto.ended()  # by hand, in mid-run
    assert modes(auto, (6, ""), (7, "TELEOP"), (8, "POLICY")) == ["", "", "start"]
