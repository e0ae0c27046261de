"""Who moves the arm: the modes, and the one table of how they change."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Mode(str, Enum):
    """What the arbiter lets through."""

    HOLD = "HOLD"
    TELEOP = "TELEOP"
    POLICY = "POLICY"
    STOPPED = "STOPPED"


@dataclass(frozen=True)
class Source:
    """One who may command the arm, as in ``twist_mux``.

    Attributes:
        mode: in which its commands pass.
        priority: a source that speaks while one of lower priority is active takes over, if ``takes_over``.
        timeout: silence after which the arbiter brakes and goes to HOLD, s: no command is followed for longer.
        takes_over: whether speaking is enough; otherwise it must be engaged on purpose.
        tail: s the last point of its commands may run on while it slows to rest, instead of the stitch option.
            A stream of short commands needs one: it would be braked for the end of each. It is also followed
            at once, without the stitch option ``frozen``.
    """

    mode: Mode
    priority: int
    timeout: float
    takes_over: bool
    tail: float | None = None


SOURCES = {
    "teleop": Source(Mode.TELEOP, priority=10, timeout=0.5, takes_over=True, tail=0.1),
    "policy": Source(Mode.POLICY, priority=1, timeout=2.0, takes_over=False),
}


@dataclass(frozen=True)
class Impediment:
    """Why the controller cannot be spoken to, or not be relied on.

    Attributes:
        stops: whether it ends in STOPPED, to be reset; else in HOLD, to be engaged again.
        deaf: the controller hears nothing, or must not be spoken to: nothing is sent.
        astray: it is not on the plan in force: the arm is halted from where it is measured, instead of braked.
    """

    stops: bool = True
    deaf: bool = False
    astray: bool = False


IMPEDIMENTS = {
    "controller": Impediment(deaf=True),  # deactivated, or gone
    "program": Impediment(deaf=True),  # the robot's program does not run
    "scaling": Impediment(stops=False, astray=True),  # it plays slower than time
    "clock": Impediment(astray=True),  # its stamps are not of this clock
    "writers": Impediment(stops=False),  # somebody else may write to it
    "lock": Impediment(stops=False),  # a lock that is required has not been heard
}

# (mode, event) -> mode. What is not in the table does not happen. Guards, by name, are methods of the arbiter
# that return why not, or nothing.
TRANSITIONS: dict[tuple[Mode, str], Mode] = {
    (Mode.HOLD, "engage_policy"): Mode.POLICY,
    (Mode.HOLD, "engage_teleop"): Mode.TELEOP,
    (Mode.HOLD, "touch"): Mode.TELEOP,  # a hand on the stick, after it had been let go
    (Mode.POLICY, "engage_policy"): Mode.POLICY,
    (Mode.POLICY, "engage_teleop"): Mode.TELEOP,
    (Mode.POLICY, "touch"): Mode.TELEOP,
    (Mode.POLICY, "hold"): Mode.HOLD,
    (Mode.POLICY, "silence"): Mode.HOLD,
    (Mode.POLICY, "hand_over"): Mode.HOLD,  # the policy itself, or its monitor, asks to be held
    (Mode.POLICY, "blind"): Mode.HOLD,  # joint states stopped coming
    (Mode.POLICY, "impeded"): Mode.HOLD,  # see IMPEDIMENTS
    (Mode.POLICY, "fault"): Mode.HOLD,  # of the filter itself
    (Mode.POLICY, "contested"): Mode.HOLD,  # two writers on its topic
    (Mode.TELEOP, "engage_teleop"): Mode.TELEOP,
    (Mode.TELEOP, "engage_policy"): Mode.POLICY,
    (Mode.TELEOP, "hold"): Mode.HOLD,
    (Mode.TELEOP, "silence"): Mode.HOLD,
    (Mode.TELEOP, "blind"): Mode.HOLD,
    (Mode.TELEOP, "impeded"): Mode.HOLD,  # see IMPEDIMENTS
    (Mode.TELEOP, "fault"): Mode.HOLD,  # of the filter itself
    (Mode.TELEOP, "contested"): Mode.HOLD,
    (Mode.HOLD, "hold"): Mode.HOLD,
    (Mode.HOLD, "stop"): Mode.STOPPED,
    (Mode.TELEOP, "stop"): Mode.STOPPED,
    (Mode.POLICY, "stop"): Mode.STOPPED,
    (Mode.STOPPED, "stop"): Mode.STOPPED,  # the first reason stays
    (Mode.STOPPED, "hold"): Mode.STOPPED,  # and brakes, should anything move
    (Mode.STOPPED, "reset"): Mode.HOLD,
}
