"""What the recorder is doing, and the one table of how that changes."""

from __future__ import annotations

from enum import Enum


class State(str, Enum):
    """Of the recorder."""

    IDLE = "IDLE"
    RECORDING = "RECORDING"
    SAVING = "SAVING"


SUCCESS, FAILURE, UNKNOWN = "success", "failure", "unknown"

# (state, event) -> state. What is not in the table does not happen.
TRANSITIONS: dict[tuple[State, str], State] = {
    (State.IDLE, "start"): State.RECORDING,
    (State.IDLE, "snapshot"): State.SAVING,
    (State.IDLE, "stop_success"): State.IDLE,  # labels the last episode, if nobody has yet
    (State.IDLE, "stop_failure"): State.IDLE,
    (State.RECORDING, "stop_success"): State.SAVING,
    (State.RECORDING, "stop_failure"): State.SAVING,
    (State.RECORDING, "stop"): State.SAVING,  # nobody says how it went: the policy let go, the node ends
    (State.RECORDING, "discard"): State.SAVING,
    (State.RECORDING, "fault"): State.SAVING,  # the disk, say
    (State.SAVING, "saved"): State.IDLE,
}

# Outcome that an event stands for.
OUTCOMES = {"stop_success": SUCCESS, "stop_failure": FAILURE}

_WHY_NOT = {
    State.IDLE: "nothing is being recorded; call ~/start first",
    State.RECORDING: "an episode is being recorded; end it with ~/stop_success, ~/stop_failure or ~/discard",
    State.SAVING: "the last episode is still being saved; try again when ~/status says IDLE",
}


def after(state: State, event: str) -> State | None:
    """Return the state that an event leads to, None if it may not happen now."""
    return TRANSITIONS.get((state, event))


def why_not(state: State) -> str:
    """Return why an event that is not in the table is refused, and what to do."""
    return _WHY_NOT[state]
