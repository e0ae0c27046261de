"""Breaks a running graph by the book of :mod:`udvla_ros.proving.faults.scenarios`, and measures what the arm does.

Every node is a process of its own; signals, restarts and relayed sensors are real. Between two faults the graph is
made whole again: what was killed is started, the scene is set anew, the policy is engaged and moves the arm.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from udvla_ros.bringup import Bringup
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.proving.faults import graph as fault_graph
from udvla_ros.proving.faults import trace as measures
from udvla_ros.proving.faults.flood import flooded
from udvla_ros.proving.faults.report import Outcome
from udvla_ros.proving.faults.scenarios import PASS, Scenario
from udvla_ros.proving.faults.trace import Trace
from udvla_ros.proving.rigs.fault_operator import FaultError, FaultOperator, Intruder, joined

START = 120.0  # s until a node must be ready
MOVING = 0.08  # rad/s of the fastest joint: the arm is in mid-motion
LEAD = 0.3  # s of undisturbed motion that a trace begins with
ATTEMPTS = 60  # to get the arm into motion
TASK = "pick"  # the longest of the shipped bundle's
SLICE = 0.05  # s of a throttled process's turn
SEEN = 0.3  # s after which the arbiter has surely measured the arm where the new scene put it


class FaultRunner:
    """Runs scenarios on one graph.

    Args:
        bringup: the started graph of :func:`udvla_ros.proving.faults.graph.nodes`.
        operator: joined to it.
        make_intruder: makes a second writer on the policy's topic.
        quick: fewer repeats.
        seed: of moments and scenes.
    """

    def __init__(
        self,
        bringup: Bringup,
        operator: FaultOperator,
        make_intruder: Callable[[], Intruder],
        quick: bool = False,
        seed: int = 0,
    ) -> None:
        self._bringup, self._operator, self._make_intruder = bringup, operator, make_intruder
        self._quick, self._rng, self._scene = quick, np.random.default_rng(seed), 1000 + seed
        self._system_clock = bringup.nodes["arbiter_node"]
        self._notes: dict[str, object] = {}
        self._since = 0.0
        self._presses = 0
        self._lost_violations = 0  # counted by robots that were killed since

    # -- one scenario --------------------------------------------------------------------------------------
    def run(self, scenario: Scenario, said: Callable[[str], None] = lambda line: None) -> Outcome:
        """Run one scenario as often as it says and return the worst of it.

        Raises:
            FaultError: the graph cannot be brought to where the fault begins.
        """
        repeats = scenario.quick_repeats if self._quick else scenario.repeats
        outcomes = []
        for number in range(repeats):
            outcomes.append(self._once(scenario))
            said(f"{scenario.name} {number + 1}/{repeats}")
        return Outcome.worst(outcomes)

    def _once(self, scenario: Scenario) -> Outcome:
        operator, self._notes = self._operator, {}
        self._use_clock(scenario.clock)
        self._make_whole()
        self._lost_violations = 0
        before = self._violations()
        trace = self._set_out()
        self._since = time.monotonic()
        for name, *given in scenario.steps:
            getattr(self, f"_do_{name}")(*given)
        operator.wait(scenario.watch)
        mode, reason = operator.mode, operator.reason
        rest = measures.time_to_rest(trace, self._since)
        if mode in measures.ACTIVE and rest["command"] is None:
            # It bore the fault and goes on; how soon it rests is seen when it is told to.
            self._notes["kept_going"] = True
            since = time.monotonic()
            operator.services.trigger("arbiter_node/hold")
            operator.wait(1.0)
            rest = measures.time_to_rest(trace, since)
        operator.end()
        for name, *given in scenario.undo:
            getattr(self, f"_do_{name}")(*given)
        after = self._violations() + self._lost_violations
        return self._judge(scenario, trace, rest, after - before, mode, reason)

    def _judge(
        self, scenario: Scenario, trace: Trace, rest: dict[str, float | None], audited: int, mode: str, reason: str
    ) -> Outcome:
        step = measures.steps(trace, self._operator.robot)
        broken = measures.violations(trace, self._operator.robot)
        times, speeds = trace.speeds() if trace.q else (np.zeros(0), np.zeros(0))
        moves = measures.moved_again(trace, self._since)
        return Outcome(
            scenario=scenario, rest=rest, step=step, violations=audited + sum(broken.values()),
            by_kind={**broken, **({"at_controller": audited} if audited else {})},
            resumed=measures.resumed(trace, self._since), moved_again=moves, mode=mode, reason=reason,
            notes=dict(self._notes),
            curve=(times - self._since, speeds), modes=[(at - self._since, m) for at, m, _ in trace.modes],
        )  # fmt: skip

    # -- making it whole -----------------------------------------------------------------------------------
    def _use_clock(self, relayed: bool) -> None:
        """Let the arbiter run on the system's clock or on the relay's, starting it anew where that changes."""
        self._operator.own_clock = not relayed
        wanted = fault_graph.on_relayed_clock(self._system_clock) if relayed else self._system_clock
        if self._bringup.nodes["arbiter_node"] != wanted:
            self._end("arbiter_node")
            self._bringup.nodes["arbiter_node"] = wanted

    def _end(self, name: str) -> None:
        self._bringup.kill(name, signal.SIGINT)
        self._operator.need(lambda: self._bringup.codes()[name] is not None, f"{name} to end", 10.0)

    def _make_whole(self) -> None:
        """Start what is not there, set the scene, and leave the arm in HOLD."""
        operator, bringup = self._operator, self._bringup
        gone = [name for name in bringup.nodes if bringup.codes().get(name, 0) is not None]
        if gone:
            bringup.start(gone)
            bringup.wait_ready(START, gone)
        operator.let_go()
        operator.services.set_parameters("fault_relay", PASS)
        operator.services.trigger("arbiter_node/stop")
        self._scene += 1
        operator.services.set_parameters("sim_node", {"seed": self._scene, "task": TASK})
        answer = operator.services.trigger("sim_node/reset_episode")
        if not answer.success:
            raise FaultError(f"sim_node did not reset: {answer.message}")
        operator.wait(SEEN)
        told: list[str] = []

        def reset() -> bool:
            verdict = operator.services.trigger("arbiter_node/reset")
            told.append(verdict.message)
            return verdict.success

        if not self._patiently(reset):
            raise FaultError(f"the arbiter could not be reset: {told[-1]}")
        operator.need(lambda: operator.mode == "HOLD", "HOLD")

    def _patiently(self, act: Callable[[], bool], seconds: float = 15.0) -> bool:
        deadline = time.monotonic() + seconds
        while not act():
            if time.monotonic() > deadline:
                return False
            self._operator.wait(0.1)
        return True

    def _set_out(self) -> Trace:
        """Give the arm to the policy, wait for mid-motion a random moment on, and return the trace of it."""
        operator, told = self._operator, ""

        def moving() -> bool:
            return operator.speed() > MOVING

        for _ in range(ATTEMPTS):
            trace = operator.record()
            answer = operator.engage("policy")
            told = answer.message
            if not answer.success:
                operator.wait(0.1)
                continue
            operator.until(lambda: operator.mode == "POLICY", 1.0)
            operator.until(lambda: moving() or operator.mode != "POLICY", 10.0)
            operator.wait(LEAD + float(self._rng.uniform(0.0, 0.8)))
            operator.until(lambda: moving() or operator.mode != "POLICY", 3.0)
            if moving() and operator.mode == "POLICY":
                return trace
            told = operator.reason  # a machine too busy for the policy: it is engaged again
        raise FaultError(f"the policy did not get the arm into motion: {told}")

    def _violations(self) -> int:
        return int(self._operator.values("sim_node")["limit_violations"])

    # -- the steps of scenarios ------------------------------------------------------------------------------
    def _do_wait(self, seconds: float) -> None:
        self._operator.wait(seconds)

    def _do_signal(self, node: str, name: str) -> None:
        if node == "sim_node" and name == "KILL":  # what it counted dies with it
            with contextlib.suppress(FaultError):
                self._lost_violations = int(self._operator.values(node, fresh=False)["limit_violations"])
        self._bringup.kill(node, getattr(signal, f"SIG{name}"))

    def _do_start(self, node: str) -> None:
        self._operator.need(lambda: self._bringup.codes()[node] is not None, f"{node} to be gone", 5.0)
        self._bringup.start([node])
        self._bringup.wait_ready(START, [node])
        begun = time.monotonic()
        self._operator.need(lambda: self._operator.command_after(begun), f"commands after the start of {node}")

    def _do_relay(self, values: dict[str, object]) -> None:
        self._operator.services.set_parameters("fault_relay", values)

    def _do_throttle(self, node: str, share: float, seconds: float) -> None:
        """Let a process run for a part of the time only."""
        done = threading.Event()

        def turns() -> None:
            while not done.is_set():
                self._bringup.kill(node, signal.SIGSTOP)
                done.wait(SLICE * (1.0 - share))
                self._bringup.kill(node, signal.SIGCONT)
                done.wait(SLICE * share)

        thread = threading.Thread(target=turns, name=f"throttle of {node}", daemon=True)
        thread.start()
        self._operator.wait(seconds)
        done.set()
        thread.join()

    def _do_refused(self, source: str) -> None:
        """Note what the arbiter answers to an engagement that it must refuse."""
        answer = self._operator.engage(source)
        self._notes["engagement"] = "was accepted" if answer.success else f"refused: {answer.message}"
        self._notes["unsafe"] = answer.success

    def _do_intrude(self, hz: float, seconds: float) -> None:
        intruder = self._make_intruder()
        try:
            self._since = time.monotonic()
            for _ in range(round(hz * seconds)):
                intruder.send()
                self._operator.wait(1.0 / hz)
            answer = self._operator.engage("policy")
            self._notes["engagement"] = "was accepted" if answer.success else f"refused: {answer.message}"
            self._notes["unsafe"] = answer.success
        finally:
            intruder.close()

    def _do_flood(self, seconds: float) -> None:
        """Let a crowd come to the operator's page."""
        with flooded(int(str(self._bringup.nodes["console_node"].parameters["port"]))):
            self._operator.wait(seconds)

    def _do_press(self) -> None:
        self._presses += 1
        if self._presses % 2:
            self._operator.services.trigger("arbiter_node/stop")
        else:
            self._operator.press(True)

    def _do_release(self) -> None:
        self._operator.press(False)

    def _do_switches(self, count: int, quick_count: int) -> None:
        """Take over by teleop and engage the policy again; half of the switches each way."""
        operator, done, late = self._operator, 0, 0
        total = quick_count if self._quick else count
        while done < total:
            operator.take_stick()
            late += not operator.until(lambda: operator.mode == "TELEOP", 1.0)
            operator.wait(float(self._rng.uniform(0.1, 0.5)))
            operator.let_go()
            answer = operator.engage("policy")
            late += not (answer.success and operator.until(lambda: operator.mode == "POLICY", 1.0))
            operator.wait(float(self._rng.uniform(0.2, 0.9)))
            done += 2
        operator.take_stick()  # the last input ends in mid-motion by teleop
        operator.wait(0.5)
        self._notes |= {"switches": done, "switches_that_failed": late, "unsafe": late > 0}

    def _do_silence(self) -> None:
        self._operator.let_go()
        self._since = time.monotonic()


@contextmanager
def running(
    nodes: Sequence[Any], env: dict[str, str], robot: RobotDescription, logs: Path, *, quick: bool, seed: int
) -> Iterator[tuple[FaultRunner, FaultOperator]]:
    """Start the graph for the length of a block; stopped processes are woken before they are ended.

    Raises:
        BringupError: a node does not start.
    """
    bringup = Bringup(nodes, env, write=lambda line: None, log_dir=logs)
    try:
        bringup.start()
        bringup.wait_ready(START)
        with joined(robot) as (operator, context):
            yield FaultRunner(bringup, operator, lambda: Intruder(operator, context), quick, seed), operator
    finally:
        for name, code in bringup.codes().items():
            if code is None:
                bringup.kill(name, signal.SIGCONT)
        bringup.stop()
