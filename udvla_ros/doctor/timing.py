"""Rates against what the robot file says and the guards need, and clocks against this machine's."""

from __future__ import annotations

import numpy as np

from udvla_ros.doctor.report import Finding, fail, ok, warn
from udvla_ros.doctor.snapshot import Snapshot, Stream
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.policy.contract import guards_of

SLOW = 0.8  # of the rate it is set to
SKEWED = 0.01  # s: beyond this an offset is worth a word
DEFAULT_TIMEOUT = 0.25  # s: the arbiter's, where the robot file gives none


def check(robot: RobotDescription, seen: Snapshot) -> list[Finding]:
    """Judge rates, gaps, offsets between clocks and between cameras."""
    guards = guards_of(robot)
    timeout = float(robot.arbiter.get("joint_state_timeout", DEFAULT_TIMEOUT))
    states = seen.joint_states
    found = []
    if states.arrivals:
        found += _rate(
            "joint_states", states, robot.driver.get("joint_states_hz"), timeout, "arbiter.joint_state_timeout"
        )
        found += _clock("joint_states", states, np.inf, "")
    for name, camera in seen.cameras.items():
        if camera.arrivals:
            found += _rate(
                f"camera {name}", camera, robot.cameras[name].get("hz"), guards.max_age, "observation.max_age"
            )
            found += _clock(f"camera {name}", camera, guards.max_age, "observation.max_age")
    found += _between_cameras(robot, seen)
    if seen.use_sim_time:
        found.append(
            warn("clock", "the graph runs on simulated time, this look on the machine's", "offsets above mean nothing")
        )
    return found


def _rate(what: str, stream: Stream, expected: object, allowed: float, key: str) -> list[Finding]:
    check, hz, gap = f"rate {what}", stream.hz(), stream.longest_gap()
    said = f"{hz:.1f} Hz, longest gap {gap * 1e3:.0f} ms"
    if len(stream.arrivals) < 2 or 1.0 / max(hz, 1e-9) > allowed:
        return [fail(check, f"{said}: {key} of {allowed:g} s refuses that", "make it publish faster")]
    if gap > allowed:
        return [
            warn(
                check, f"{said}, above {key} of {allowed:g} s", "find what holds it up: network, load, a USB bus shared"
            )
        ]
    if isinstance(expected, (int, float)) and expected > 0 and hz < SLOW * expected:
        return [warn(check, f"{said}, {expected:g} Hz expected", "messages get lost or the driver is set slower")]
    return [ok(check, said)]


def _clock(what: str, stream: Stream, allowed: float, key: str) -> list[Finding]:
    """Arrival less stamp holds transport and exposure, never less than nothing unless the clocks differ."""
    check = f"clock {what}"
    if not any(stream.stamps):
        mend = "let its driver fill in header.stamp with the time of the exposure"
        return [fail(check, "header.stamp is 0", mend) if key else warn(check, "header.stamp is 0", mend)]
    delays = stream.delays()
    least, median = float(delays.min()), float(np.median(delays))
    said = f"stamps are {median * 1e3:.0f} ms old on arrival"
    if least < -SKEWED:
        level = fail if least < -0.1 else warn
        return [
            level(check, f"stamps lie {-least * 1e3:.0f} ms in the future", "synchronise the clocks (chrony, PTP)"),
        ]
    if median > allowed:
        return [
            fail(
                check,
                f"{said}, {key} is {allowed:g} s",
                "synchronise the clocks (chrony, PTP), or find where the messages wait",
            )
        ]
    if median > 1.0:
        return [warn(check, said, "synchronise the clocks (chrony, PTP), or find where the messages wait")]
    if np.any(np.diff(stream.stamps) <= 0):
        return [warn(check, "stamps repeat or go back", "is the same topic published twice?")]
    return [ok(check, said)]


def _between_cameras(robot: RobotDescription, seen: Snapshot) -> list[Finding]:
    """The policy takes, for the newest time all have reached, each camera's nearest frame."""
    streams = {name: np.array(c.stamps) for name, c in seen.cameras.items() if len(c.stamps) > 1 and any(c.stamps)}
    if len(streams) < 2:
        return []
    allowed = guards_of(robot).max_skew
    slowest = min(streams, key=lambda name: len(streams[name]))
    apart = []
    for stamp in streams[slowest]:
        nearest = [float(np.abs(s - stamp).min()) for s in streams.values()]
        apart.append(max(nearest))
    median = float(np.median(apart))
    said = f"frames that belong together are {median * 1e3:.0f} ms apart, max_skew is {allowed * 1e3:.0f} ms"
    if median > allowed:
        return [
            fail(
                "clock between cameras", said, "trigger them together, raise their rates, or raise observation.max_skew"
            )
        ]
    if float(np.quantile(apart, 0.9)) > allowed:
        return [
            warn("clock between cameras", f"{said}; a tenth are beyond", "expect refusals; raise the cameras' rates")
        ]
    return [ok("clock between cameras", said)]
