"""The look-alike writes what the real joint_trajectory_controller wrote, cycle by cycle.

``jtc_traces.npz`` holds 66 scenarios that were run through ros2_controllers (jazzy, position interface, six joints, 100
to 500 Hz, cycles with jitter, both settings of ``interpolate_from_desired_state``): per scenario its options, the order
of messages and cycles, the messages, the measured state in the cycle after each, whether it was accepted, and the
commands in 1e-12 rad as second differences.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from udvla_ros.sim.jtc import JointTrajectoryController, TrajectoryCommand, TrajectoryRejected

JOINTS = tuple("abcdef")
EQUAL = 1e-9  # rad


def replayed(trace: dict[str, np.ndarray]) -> tuple[np.ndarray, list[bool]]:
    """Return the commands [n, 6] of the look-alike and which messages it accepted."""
    rate, from_desired, moving_end = trace["options"]
    controller = JointTrajectoryController(
        JOINTS, trace["start"], period=1 / rate, interpolate_from_desired_state=bool(from_desired),
        allow_nonzero_velocity_at_end=bool(moving_end),
    )  # fmt: skip
    times, lengths = np.cumsum(trace["cycle_ns"][:, 0]) * 1e-9, trace["cycle_ns"][:, 1] * 1e-9
    written, accepted, measured = [], [], np.zeros(12)
    for is_message in trace["is_message"]:
        if not is_message:
            cycle = len(written)
            sample = controller.update(times[cycle], measured[:6], measured[6:], lengths[cycle])
            written.append(sample.position)
            continue
        name, measured = f"m{len(accepted)}", trace["measured"][len(accepted)]
        now, stamp = trace[f"{name}/now_stamp_ns"] * 1e-9
        columns = np.split(trace[f"{name}/points"], trace[f"{name}/points"].shape[1] // 6, axis=1)
        try:
            controller.accept(TrajectoryCommand(JOINTS, trace[f"{name}/times_ns"] * 1e-9, *columns, stamp=stamp), now)
            accepted.append(True)
        except TrajectoryRejected:
            accepted.append(False)
    return np.array(written), accepted


@pytest.fixture(scope="module")
def traces() -> dict[str, dict[str, np.ndarray]]:
    found: dict[str, dict[str, np.ndarray]] = {}
    with np.load(Path(__file__).with_name("jtc_traces.npz")) as file:
        for key in file.files:
            scenario, _, name = key.partition("/")
            found.setdefault(scenario, {})[name] = file[key]
    return found


def test_every_command_and_every_answer_is_the_real_one(traces, capsys):
    differences = {}
    for name, trace in traces.items():
        written, accepted = replayed(trace)
        real = np.cumsum(np.cumsum(trace["command_prad"], axis=0), axis=0) * 1e-12
        assert accepted == trace["accepted"].tolist(), name
        differences[name] = float(np.abs(written - real).max())
    worst = max(differences, key=differences.__getitem__)
    with capsys.disabled():
        print(f"\n{len(differences)} traces of the real controller, max difference {differences[worst]:.1e} rad")
    assert len(differences) == 66
    assert differences[worst] <= EQUAL, worst
