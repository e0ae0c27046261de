"""Did the arm stay inside the robot file's limits, as commanded and as measured?"""

from __future__ import annotations

import numpy as np

from udvla_ros.rollouts.bags.episode import RecordedEpisode
from udvla_ros.rollouts.bags.findings import CheckReport

COMMAND_GAP = 0.2  # s: what the policy's history of commands bridges
COMMAND_SLACK = 1e-4  # of position (rad) and, relative, of velocity: rounding on the way
MEASURED_POSITION_SLACK, MEASURED_VELOCITY_SLACK = 0.03, 0.15  # rad; relative: an arm overshoots, sensors are noisy


def check_commanded(episode: RecordedEpisode, report: CheckReport, begin: float) -> None:
    joints, arm = episode.commanded, len(episode.robot.joints)
    limits = episode.robot.limits
    fine = np.isfinite(joints.position[:, :arm]).all(axis=1)
    time, q = joints.time[fine], joints.position[fine, :arm]
    if len(time) < 2:
        return
    qd = joints.velocity[fine, :arm]
    _beyond(report, "commanded", episode, time - begin, q, qd, COMMAND_SLACK, COMMAND_SLACK)
    # Where the arm was stopped it may have been put elsewhere; anywhere else a command does not jump.
    steps, dt = np.abs(np.diff(q, axis=0)), np.maximum(np.diff(time), 1e-3)
    free = np.array([episode.modes.at(t) not in ("STOPPED", "") for t in time[1:]]) & (np.diff(time) < COMMAND_GAP)
    share = np.where(free[:, None], steps - 1e-3, 0.0) / (limits.velocity * dt[:, None])
    if share.max() > 1.05:
        k, joint = np.unravel_index(share.argmax(), share.shape)
        report.error("jump", f"the command of {episode.robot.joints[joint]} jumps by {steps[k, joint]:.3f} rad in "
                     f"{dt[k] * 1e3:.0f} ms", float(time[k] - begin))  # fmt: skip
    points = episode.robot.kinematics.positions(q)
    depth = episode.robot.workspace.depth(points).max(axis=1)
    if depth.max() > 1e-3:
        k = int(depth.argmax())
        text = f"the commanded TCP leaves the workspace by {depth[k] * 1e3:.0f} mm"
        report.error("limit", text, float(time[k] - begin))
    speed = np.linalg.norm(np.diff(points, axis=0), axis=1) / dt
    report.numbers["tcp_speed_max"] = round(float(np.where(free, speed, 0.0).max()), 4)
    over = np.where(free, speed, 0.0) / limits.tcp_speed
    if over.max() > 1.05:
        k = int(over.argmax())
        report.error("limit", f"the commanded TCP moves at {speed[k]:.2f} m/s, {limits.tcp_speed:g} are allowed",
                     float(time[k] - begin))  # fmt: skip


def check_measured(episode: RecordedEpisode, report: CheckReport, begin: float) -> None:
    joints, arm = episode.measured, len(episode.robot.joints)
    fine = np.isfinite(joints.position[:, :arm]).all(axis=1)
    if not fine.any():
        return
    time, q = joints.time[fine], joints.position[fine, :arm]
    _beyond(report, "measured", episode, time - begin, q, joints.velocity[fine, :arm],
            MEASURED_POSITION_SLACK, MEASURED_VELOCITY_SLACK)  # fmt: skip
    if len(episode.commanded.time) > 1:
        error = np.abs(episode.commanded.at(time)[:, :arm] - q)
        inside = (time >= episode.commanded.time.min()) & (time <= episode.commanded.time.max())
        error = error[inside & np.isfinite(error).all(axis=1)]
        if len(error):
            report.numbers["following_error_max"] = round(float(error.max()), 5)
            most = episode.robot.arbiter.get("following_error")
            if most and error.max() > most:
                report.warn("following", f"the arm was {error.max():.3f} rad behind its command; the arbiter stops at "
                            f"{most:g}")  # fmt: skip


def _beyond(
    report: CheckReport, who: str, episode: RecordedEpisode, time: np.ndarray, q: np.ndarray, qd: np.ndarray,
    slack: float, velocity_slack: float,
) -> None:  # fmt: skip
    """Note the worst position and the worst velocity beyond the limits, per joint."""
    limits = episode.robot.limits
    over = np.maximum(limits.hard_lower - q, q - limits.hard_upper)
    speed = np.nan_to_num(np.abs(qd), nan=0.0) / limits.velocity
    report.numbers[f"{who}_velocity_share_max"] = round(float(speed.max()), 4)
    for k, joint in enumerate(episode.robot.joints):
        if over[:, k].max() > slack:
            at = int(over[:, k].argmax())
            report.error("limit", f"{who} {joint} is {over[at, k]:.3f} rad beyond its position limit", float(time[at]))
        if speed[:, k].max() > 1.0 + velocity_slack:
            at = int(speed[:, k].argmax())
            report.error("limit", f"{who} {joint} moves at {speed[at, k] * limits.velocity[k]:.2f} rad/s, "
                         f"{limits.velocity[k]:g} are allowed", float(time[at]))  # fmt: skip
