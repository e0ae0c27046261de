"""``teleop_node`` as real processes: a keyboard in a real pseudo-terminal, a pad and a leader arm that publish."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from harness import environment, skip_where_time_is_not_real
from robot_probe import ROBOT
from sensor_msgs.msg import JointState, Joy
from std_msgs.msg import Bool
from std_srvs.srv import Trigger
from terminal_process import TerminalProcess
from trajectory_msgs.msg import JointTrajectory

from udvla_ros import graph
from udvla_ros.bringup import Bringup
from udvla_ros.nodes import runtime

COMMAND = ["-m", "udvla_ros", "teleop", "--sim", "--speed", "0.5"]


@pytest.fixture
def motions(probe):
    """What is heard on the operator's topic; empty at the start of each test."""
    if "teleop/joint_trajectory" not in probe.heard:
        probe.hear(JointTrajectory, "teleop/joint_trajectory", runtime.COMMAND_QOS)
    heard = probe.heard["teleop/joint_trajectory"]
    heard.clear()
    return heard


@pytest.fixture
def keyboard(robot, probe, motions):
    """The keyboard's process at its terminal, once it shows who has the arm."""
    process = TerminalProcess(COMMAND, environment())
    try:
        probe.until(lambda: "HOLD" in process.text, "the status line", 30.0)
        yield process
    finally:
        process.close()


def hold(probe, process, key: bytes, condition, what: str) -> None:
    """Hold a key, as a terminal repeats it, until the condition is met."""
    timer = probe.node.create_timer(0.033, lambda: process.type(key))
    try:
        probe.until(condition, what, 15.0)
    finally:
        probe.node.destroy_timer(timer)


def tcp(robot) -> np.ndarray:
    return ROBOT.kinematics.forward(robot.commanded()[:6])[:3, 3]


def test_keys_jog_the_arm_and_letting_go_ends_in_hold(robot, probe, motions, keyboard):
    begin, violations = tcp(robot), robot.violations()
    assert keyboard.raw()
    hold(probe, keyboard, b"e", lambda: robot.mode == "TELEOP" and len(motions) > 20, "a jog")
    probe.until(lambda: robot.mode == "HOLD", "HOLD after the key was let go", 5.0)
    probe.until(robot.resting, "rest")
    way = tcp(robot) - begin
    assert way[2] > 0.02 and np.abs(way[:2]).max() < 0.005
    assert set(motions[0].joint_names) == set(ROBOT.joints), "the gripper is left alone"
    assert all(set(m.points[-1].velocities) == {0.0} for m in motions)
    assert robot.violations() == violations
    assert "TELEOP (teleop" in keyboard.text


def test_a_touch_takes_over_from_the_policy_and_a_key_gives_back(robot, probe, keyboard):
    robot.engage()
    robot.chunks.publish(robot.chunk(np.array([0.3, -0.2, 0.2, 0, 0, 0.3, 0]), robot.commanded(), steps=30))
    probe.until(lambda: np.abs(np.array(robot.commands[-1].velocity)).max() > 0.05, "the policy's motion")
    hold(probe, keyboard, b"d", lambda: robot.mode == "TELEOP", "the operator to take over")
    probe.until(lambda: robot.mode == "HOLD", "HOLD", 5.0)
    keyboard.type(b"p")
    probe.until(lambda: robot.mode == "POLICY", "the policy again, on purpose", 5.0)
    probe.until(lambda: "engage_policy: policy engaged" in keyboard.text, "the answer in the status line")


def test_keys_call_the_services_and_say_what_came_of_it(robot, probe, keyboard, motions):
    called = []

    def answer(name):
        def reply(_, response):
            called.append(name)
            response.success, response.message = name != "stop_failure", f"{name} it is"
            return response

        return reply

    keyboard.type(b"n")
    probe.until(lambda: "recorder_node is not running: episode_start did nothing" in keyboard.text, "that line")
    names = {b"n": "start", b"y": "stop_success", b"f": "stop_failure", b"\x7f": "discard", b"v": "snapshot"}
    services = [probe.node.create_service(Trigger, f"recorder_node/{n}", answer(n)) for n in names.values()]
    try:
        for key, name in names.items():
            while name not in called:  # until the service has been discovered
                keyboard.type(key)
                heard = len(keyboard.text)
                probe.until(lambda h=heard, n=name: n in called or len(keyboard.text) > h, "an answer")
            said = f"{'REFUSED: ' if name == 'stop_failure' else ''}{name} it is"
            probe.until(lambda s=said: s in keyboard.text, f"'{said}' in the status line")
    finally:
        for service in services:
            probe.node.destroy_service(service)
    keyboard.type(b"x")
    probe.until(lambda: robot.mode == "STOPPED", "STOPPED")
    motions.clear()
    keyboard.type(b"w")
    probe.until(lambda: "the arm is stopped: reset it first" in keyboard.text, "why nothing moves")
    assert not motions
    keyboard.type(b"r")
    probe.until(lambda: robot.mode == "HOLD", "HOLD")
    probe.until(lambda: keyboard.text.rfind("reset: reset") > keyboard.text.rfind("reset it first"), "w to be let go")
    keyboard.type(b"g")
    probe.until(lambda: robot.commanded()[6] > 0.7, "a closed gripper", 10.0)
    assert ROBOT.gripper.joint in motions[-1].joint_names or ROBOT.gripper.joint in motions[0].joint_names


@pytest.mark.parametrize("end", ["Ctrl-C", "SIGTERM", "SIGHUP"])
def test_the_terminal_is_given_back_however_it_ends(keyboard, probe, end):
    assert keyboard.raw() and not keyboard.restored()
    if end == "Ctrl-C":
        keyboard.type(b"\x03")
    else:
        keyboard.popen.send_signal(getattr(signal, end))
    probe.until(lambda: keyboard.popen.poll() is not None, "the end", 15.0)
    assert keyboard.popen.returncode == 0 and keyboard.restored()


def test_suspended_it_leaves_the_terminal_to_the_shell_and_continued_it_takes_it_again(keyboard, probe):
    keyboard.popen.send_signal(signal.SIGTSTP)
    probe.until(lambda: stopped(keyboard.popen.pid) and keyboard.restored(), "the terminal given back")
    keyboard.popen.send_signal(signal.SIGCONT)
    probe.until(keyboard.raw, "the terminal taken again")


def stopped(pid: int) -> bool:
    """Return whether a process is suspended."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"


def test_without_a_terminal_one_line_says_what_to_do(probe):
    command = [sys.executable, *COMMAND]
    done = subprocess.run(
        command, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "needs a terminal of its own" in done.stderr and done.stderr.strip().count("\n") == 0


# -- devices that publish --------------------------------------------------------------------------------------
@pytest.fixture
def teleop(robot, motions):
    """Start teleop_node for a device as the launch files do; returns its bringup."""
    started = []

    def start(device: str, **parameters: str) -> Bringup:
        (node,) = graph.resolve("teleop", {"teleop": device, "robot": "config/robots/ur5e_sim.yaml"})
        made = Bringup([node], environment(), write=lambda line: None)
        started.append(made)
        made.start()
        made.wait_ready(30.0)
        return made

    yield start
    for made in started:
        made.stop()


class Device:
    """Publishes what a device says, at its rate, until it is unplugged."""

    def __init__(self, probe, kind, topic, rate: float, message) -> None:
        self.publisher = probe.publisher(kind, topic)
        self._probe, self.message = probe, message
        self.timer = probe.node.create_timer(1.0 / rate, lambda: self.publisher.publish(self.message()))

    def unplug(self) -> float:
        """Stop publishing, as a process that died does; returns when."""
        self._probe.node.destroy_timer(self.timer)
        return self._probe.now()


def press(probe, held, drives, what):
    """Press the button until it drives: a touch that a busy machine let through too late is spent, by design."""
    for _ in range(4):
        held["deadman"] = True
        late = time.monotonic() + 6.0
        probe.until(lambda: drives() or time.monotonic() > late, what)  # noqa: B023 - called within this turn
        if drives():
            return
        held["deadman"] = False
        let_go = time.monotonic() + 0.3
        probe.until(lambda: time.monotonic() > let_go, "the button to be seen let go")  # noqa: B023
    raise AssertionError(f"{what}: four touches came to nothing")


def test_a_pad_drives_while_its_button_is_held_and_unplugged_it_ends_in_hold(robot, probe, motions, teleop):
    skip_where_time_is_not_real()
    teleop("joy")
    held = {"deadman": False, "up": 0.0}

    def say() -> Joy:
        axes, buttons = [0.0] * 8, [0] * 11
        axes[4], buttons[4] = held["up"], int(held["deadman"])
        return Joy(axes=axes, buttons=buttons)

    pad = Device(probe, Joy, "joy", 20.0, say)
    begin = tcp(robot)
    held["up"] = 1.0
    heard = len(robot.commands)
    probe.until(lambda: len(robot.commands) > heard + 40, "a while of sticks without the button")
    assert not motions and robot.mode == "HOLD"
    robot.engage()
    press(probe, held, lambda: robot.mode == "TELEOP" and len(motions) > 20, "the pad to drive")
    unplugged = pad.unplug()
    probe.until(lambda: robot.mode == "HOLD", "HOLD", 5.0)
    assert probe.now() - unplugged < 0.3 + 0.5 + 0.4, "its silence, the arbiter's, and a machine's"
    probe.until(robot.resting, "rest")
    assert tcp(robot)[2] - begin[2] > 0.01
    motions.clear()
    Device(probe, Joy, "joy", 20.0, say)  # plugged in again, with the button down
    heard = len(robot.commands)
    probe.until(lambda: len(robot.commands) > heard + 60, "a while")
    assert not motions and robot.mode == "HOLD", "it drives though nobody pressed the button anew"
    held["deadman"] = False
    heard = len(robot.commands)
    probe.until(lambda: len(robot.commands) > heard + 20, "the button to be seen let go")
    press(probe, held, lambda: robot.mode == "TELEOP", "the pad to drive again")
    held["deadman"] = False
    probe.until(lambda: robot.mode == "HOLD", "HOLD", 5.0)


def test_a_leader_arm_is_followed_from_where_both_are_and_its_death_ends_in_hold(robot, probe, motions, teleop):
    skip_where_time_is_not_real()
    bringup = teleop("leader")
    begin = robot.commanded()
    far = {"q": np.array([1.0, 0.5, -1.0, 2.0, 0.3, -0.7]), "deadman": False}  # nowhere near the arm

    def say() -> JointState:
        names = list(reversed(ROBOT.joints))
        return JointState(name=names, position=far["q"][::-1].tolist())

    Device(probe, JointState, "leader/joint_states", 50.0, say)
    Device(probe, Bool, "teleop/deadman", 20.0, lambda: Bool(data=far["deadman"]))
    heard = len(robot.commands)
    probe.until(lambda: len(robot.commands) > heard + 40, "a while without the deadman")
    assert not motions
    press(probe, far, lambda: robot.mode == "TELEOP" and len(motions) > 10, "the leader to be followed")
    np.testing.assert_allclose(robot.commanded()[:6], begin[:6], atol=1e-3)
    step = np.array([0.15, -0.1, 0.1, 0.0, 0.0, 0.2])
    start, moved_at = far["q"].copy(), time.monotonic()

    def move() -> bool:
        share = min(1.0, (time.monotonic() - moved_at) / 1.0)
        far["q"] = start + share * step
        return share == 1.0 and np.abs(robot.commanded()[:6] - begin[:6] - step).max() < 5e-3

    probe.until(move, "the arm to come where the leader went")
    last = len(motions)
    probe.until(lambda: len(motions) > last, "a message")
    killed = probe.now()
    bringup.kill("teleop_node")
    probe.until(lambda: robot.mode == "HOLD", "HOLD", 5.0)
    assert probe.now() - killed < 0.5 + 0.3
    far["deadman"] = False
    probe.until(robot.resting, "rest")
