"""The faults, as data: what is done to the running graph, how long one looks on, and what must come of it.

A step is the name of an action of :class:`udvla_ros.proving.rigs.fault_runner.FaultRunner` with its arguments.
The clock starts at the first step, while the policy moves the arm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from udvla_ros.errors import ConfigError

Step = tuple[object, ...]

CHUNK = 1.2  # s after which the last chunk of a policy that fell silent has been played, with its tail
UNSEEN = 0.6  # s after which stale or frozen cameras stop the policy
INFERENCE = 0.6  # s that a chunk may be under way when the fault comes, on a busy machine
BRAKE = 0.5  # s from a stop to rest


class HasName(Protocol):
    """What can be chosen by its name."""

    @property
    def name(self) -> str:
        """As in the report."""


Named = TypeVar("Named", bound=HasName)


@dataclass(frozen=True)
class Scenario:
    """One fault.

    Attributes:
        name: as in the report.
        what: what is done, for people.
        steps: the fault.
        undo: steps that bring the graph back.
        watch: s to look on after the last step.
        rest_within: s from the first step within which the arm must rest.
        ends: modes it may end in.
        repeats, quick_repeats: how often; the worst of all counts.
        clock: whether the arbiter runs on a clock that the relay publishes.
    """

    name: str
    what: str
    steps: tuple[Step, ...]
    rest_within: float
    ends: tuple[str, ...]
    undo: tuple[Step, ...] = ()
    watch: float = 2.0
    repeats: int = 1
    quick_repeats: int = 1
    clock: bool = False


PASS: dict[str, object] = {
    "front": "pass", "wrist": "pass", "joint_states_hz": 0.0, "clock_offset": 0.0,
}  # fmt: skip

SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        "policy killed", "SIGKILL of policy_node in mid-motion; it comes back 2.5 s later",
        steps=(("signal", "policy_node", "KILL"), ("wait", 2.5), ("refused", "policy"), ("start", "policy_node")),
        rest_within=CHUNK, ends=("HOLD",),
    ),
    Scenario(
        "policy hung for 2 s", "SIGSTOP of policy_node, SIGCONT after 2 s",
        steps=(("signal", "policy_node", "STOP"), ("wait", 2.0), ("signal", "policy_node", "CONT")),
        rest_within=CHUNK, ends=("HOLD",),
    ),
    Scenario(
        "policy slow by 10x", "policy_node gets a tenth of its time for 8 s",
        steps=(("throttle", "policy_node", 0.1, 8.0),),
        rest_within=CHUNK + INFERENCE, ends=("HOLD", "POLICY"),
    ),
    Scenario(
        "cameras frozen", "both cameras go on sending their last picture with fresh stamps",
        steps=(("relay", {"front": "frozen", "wrist": "frozen"}),), undo=(("relay", PASS),),
        rest_within=UNSEEN + INFERENCE + CHUNK, ends=("HOLD",), watch=5.0,
    ),
    Scenario(
        "one camera gone", "the wrist camera falls silent",
        steps=(("relay", {"wrist": "gone"}),), undo=(("relay", PASS),),
        rest_within=UNSEEN + INFERENCE + CHUNK, ends=("HOLD",), watch=5.0,
    ),
    Scenario(
        "joint_states at 1 Hz", "one joint state a second reaches the arbiter, for 5 s; then all of them again",
        steps=(("relay", {"joint_states_hz": 1.0}), ("wait", 5.0), ("relay", PASS)), undo=(("relay", PASS),),
        rest_within=1.1 + BRAKE, ends=("HOLD",),
    ),
    Scenario(
        "clock jump", "the arbiter's clock is set forward by 30 s",
        steps=(("relay", {"clock_offset": 30.0}),), undo=(("relay", PASS),),
        rest_within=CHUNK, ends=("STOPPED",), watch=4.0, clock=True,
    ),
    Scenario(
        "clock jump back", "the arbiter's clock is set back by 30 s",
        steps=(("relay", {"clock_offset": -30.0}),), undo=(("relay", PASS),),
        rest_within=CHUNK, ends=("STOPPED",), watch=4.0, clock=True,
    ),
    Scenario(
        "controller restarted", "SIGKILL of the simulated robot and its controllers; the arm comes back elsewhere",
        steps=(
            ("signal", "sim_node", "KILL"), ("wait", 2.0), ("start", "sim_node"), ("wait", 1.0), ("refused", "policy"),
        ),
        rest_within=1.1 + BRAKE, ends=("HOLD", "STOPPED"),
    ),
    Scenario(
        "two writers on the policy topic", "a second publisher sends chunks of its own for 3 s",
        steps=(("intrude", 5.0, 3.0),),
        rest_within=INFERENCE + 0.5 + BRAKE, ends=("HOLD",),
    ),
    Scenario(
        "stop at a random moment", "the stop service and the emergency-stop topic in turn, released after a second",
        steps=(("press",), ("wait", 1.0), ("release",)),
        rest_within=BRAKE, ends=("STOPPED",), repeats=10, quick_repeats=2, watch=1.0,
    ),
    Scenario(
        "200 teleop/policy switches", "teleop takes over in mid-motion and the policy is engaged again, 200 switches",
        steps=(("switches", 200, 20), ("silence",)),
        rest_within=0.3 + BRAKE, ends=("HOLD",), watch=3.0,
    ),
    Scenario(
        "console killed", "SIGKILL of console_node, the operator's page",
        steps=(("signal", "console_node", "KILL"),),
        rest_within=BRAKE, ends=("POLICY",),
    ),
    Scenario(
        "console hung for 2 s", "SIGSTOP of console_node, SIGCONT after 2 s",
        steps=(("signal", "console_node", "STOP"), ("wait", 2.0), ("signal", "console_node", "CONT")),
        rest_within=BRAKE, ends=("POLICY",),
    ),
    Scenario(
        "console flooded", "1000 connections to the operator's page for 4 s: silent, not reading, messages of 10 MB",
        steps=(("flood", 4.0),),
        rest_within=BRAKE, ends=("POLICY",),
    ),
    Scenario(
        "arbiter hung for 2 s", "SIGSTOP of arbiter_node, SIGCONT after 2 s: the controller plays its plan to rest",
        steps=(("signal", "arbiter_node", "STOP"), ("wait", 2.0), ("signal", "arbiter_node", "CONT")),
        rest_within=CHUNK, ends=("STOPPED",),
    ),
    Scenario(
        "arbiter killed", "SIGKILL of arbiter_node; it comes back 2 s later",
        steps=(("signal", "arbiter_node", "KILL"), ("wait", 2.0), ("start", "arbiter_node")),
        rest_within=CHUNK, ends=("HOLD",),
    ),
)  # fmt: skip


def chosen(only: str | None, known: Sequence[Named]) -> list[Named]:
    """Return those whose name contains one of the comma-separated words, or all.

    Raises:
        ConfigError: none does.
    """
    if not only:
        return list(known)
    words = [word.strip().lower() for word in only.split(",") if word.strip()]
    found = [s for s in known if any(word in s.name.lower() for word in words)]
    if not found:
        raise ConfigError(f"no fault is called '{only}'; there are: {', '.join(s.name for s in known)}")
    return found
