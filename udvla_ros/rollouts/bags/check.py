"""Is a recorded episode fit to learn from, or to argue from? Gaps, rates, skew, missing topics, limits.

An ``error`` says that the recording or the arm did not do what it should; a ``warning`` is worth a look.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from udvla_ros.errors import UdvlaError
from udvla_ros.rollouts.bags import metadata
from udvla_ros.rollouts.bags.check_motion import COMMAND_GAP, check_commanded, check_measured
from udvla_ros.rollouts.bags.check_pictures import check_pictures
from udvla_ros.rollouts.bags.episode import (
    CHUNK,
    CHUNK_INFO,
    COMMAND,
    INSTRUCTION,
    MODE,
    PREDICTED,
    Joints,
    RecordedEpisode,
    nearest,
    robot_of,
)
from udvla_ros.rollouts.bags.findings import CheckReport, Stream
from udvla_ros.rollouts.bags.identity import identity_of
from udvla_ros.rollouts.bags.reader import Bag, what_is_broken

LOST = 1.6  # periods between two messages from which one was lost
MOST_LOST = 0.02  # share of messages that may be lost before it is said
JOINTS_GAP = 0.2  # s, where the robot file has no arbiter.joint_state_timeout
CAMERA_AGE, CAMERA_SKEW = 0.5, 0.1  # s, where the robot file has no observation guards
FUTURE = 0.02  # s a stamp may lie after its reception
SHOWN = 3  # gaps named one by one


def check(folder: str | Path, robot: str = "", cameras: Sequence[str] = ()) -> CheckReport:
    """Look at every message and every picture of a bag: the one judgement of whether it is fit.

    Args:
        folder: of the episode.
        robot: robot file to hold it against; without, the one it was recorded with.
        cameras: the only ones that matter; none: all of the robot file.
    """
    report = CheckReport(str(folder))
    try:
        broken = what_is_broken(Path(folder))
        if broken:
            report.error("broken", broken if str(folder) in broken else f"{broken}: udvla bag repair {folder}")
            return report
        with Bag(folder) as bag:
            report.seconds = bag.duration
            _counts(bag, report)
            report.instruction, report.outcome = bag.labels.get("instruction", ""), bag.labels.get("outcome", "unknown")
            episode = RecordedEpisode(bag, robot_of(bag, robot, cameras))
            report.instruction, report.identity = episode.instruction, identity_of(episode.robot)
            report.sizes = check_pictures(episode, report)
            _look(episode, report)
            told = bag.labels.get("robot_hash")
            if told and not robot and told != hashlib.sha256(episode.robot.path.read_bytes()).hexdigest():
                report.warn("robot", f"{episode.robot.path.name} has changed since; other limits may have held then")
    except UdvlaError as error:
        report.error("unreadable", str(error))
    except Exception as error:  # one odd bag must not spoil the judgement of others
        report.error("unreadable", f"'{folder}': {type(error).__name__}: {' '.join(str(error).split())}")
    return report


def _counts(bag: Bag, report: CheckReport) -> None:
    told = {topic.name: topic for topic in metadata.read(bag.folder).topics}
    read = dict.fromkeys(bag.topics, 0)
    for raw in bag.raw():
        read[raw.topic] += 1
    for name, count in read.items():
        topic = bag.topics[name]
        if count != topic.count or name not in told or told[name].count != count:
            listed = told[name].count if name in told else None
            report.error("count", f"{name}: {count} messages, index says {topic.count}, metadata.yaml {listed}")
        elif metadata.profiles(told[name].qos) != metadata.profiles(topic.qos):
            report.error("qos", f"{name}: QoS of metadata.yaml and of the file differ; readers would find nothing")
    for name in sorted(set(told) - set(read)):
        report.error("count", f"{name}: named in metadata.yaml, not in the file")
    for label, who in (("dropped", "dropped by the recorder"), ("lost", "lost on their way to it")):
        lost = _by_topic(bag.labels.get(label, ""))
        if lost:
            text = ", ".join(f"{name} {count}" for name, count in sorted(lost.items()))
            # What a camera's best-effort network loses is judged with its rate.
            (report.error if label == "dropped" else report.warn)(label, f"messages {who}: {text}")
    if bag.labels.get("error"):
        report.error("recorder", bag.labels["error"])


def _by_topic(text: str) -> dict[str, int]:
    try:
        said = json.loads(text or "{}")
    except ValueError:
        return {}
    said = said if isinstance(said, dict) else {}
    return {str(k): v for k, v in said.items() if isinstance(v, int) and v}


def _look(episode: RecordedEpisode, report: CheckReport) -> None:
    robot, bag = episode.robot, episode.bag
    _topics(episode, report)
    observation, arbiter = robot.observation, robot.arbiter
    begin, end = bag.start * 1e-9, bag.end * 1e-9
    mute = (robot.gripper.joint,) if robot.gripper and not robot.gripper.feedback else ()
    timeout = float(arbiter.get("joint_state_timeout", JOINTS_GAP))
    for name, joints, most in ((COMMAND, episode.commanded, COMMAND_GAP), ("joint_states", episode.measured, timeout)):
        if len(joints.time):
            if joints.clock:
                report.warn("clock", f"{name}: stamps {joints.clock}; the times of reception are used")
            _stream(report, name, joints.time, joints.received, most, begin, end)
            _finite(report, name, joints, begin, mute if name != COMMAND else ())
        elif bag.find(name) is not None:
            report.error("joints", f"no message of {name} names a joint of {robot.name}; is it the right robot file?")
    oldest = float(observation.get("max_age", CAMERA_AGE))
    for camera, times in episode.camera_times.items():
        if len(times):
            late = float(np.median(times[:, 1] - times[:, 0]))
            if (times[:, 0] <= 0).any() or late > oldest:
                cause = "carry no time" if (times[:, 0] <= 0).any() else f"came {late:.2f} s after their stamps"
                report.error("clock", f"camera {camera}: images {cause}; let its driver fill in header.stamp")
            _stream(report, f"camera {camera}", times[:, 0], times[:, 1], oldest, begin, end)
    _skew(episode, report, float(observation.get("max_skew", CAMERA_SKEW)))
    check_commanded(episode, report, begin)
    check_measured(episode, report, begin)
    _policy(episode, report)


def _topics(episode: RecordedEpisode, report: CheckReport) -> None:
    bag, robot = episode.bag, episode.robot
    needed = [robot.topics.get("joint_states", "joint_states"), COMMAND, MODE]
    if "POLICY" in episode.modes.text:
        needed += [INSTRUCTION, CHUNK, CHUNK_INFO]
    for name in needed:
        topic = bag.find(name)
        if topic is None or not bag.topics[topic].count:
            report.error("missing", f"topic {name} was not recorded" if topic is None else f"{topic} has no message")
    for camera in robot.cameras:
        if episode.camera_topic(camera) is None:
            report.error("missing", f"camera {camera} ({robot.cameras[camera]['topic']}) was not recorded")
    if "POLICY" in episode.modes.text and bag.find(PREDICTED) is None:
        report.warn("missing", "no predicted images: foresight is not full, or they were not recorded")
    if episode.outcome == "interrupted":
        report.warn("label", "the recording was cut off and repaired: its end is missing")
    elif episode.outcome == "unknown":
        report.warn("label", "nobody said how the episode ended; export takes it with --outcome any alone")


def _stream(
    report: CheckReport, name: str, stamps: np.ndarray, received: np.ndarray, most: float, begin: float, end: float
) -> None:
    """Judge one periodic topic; ``most`` s of silence are allowed, also at the beginning and the end."""
    stream = Stream(name, len(stamps))
    report.streams.append(stream)
    latency = (received - stamps) * 1e3
    stream.latency_ms_p50, stream.latency_ms_p99 = (round(float(v), 2) for v in np.percentile(latency, [50, 99]))
    if latency.min() < -FUTURE * 1e3:
        report.error("clock", f"{name}: stamps lie up to {-latency.min():.0f} ms after their reception; "
                     "synchronise the clocks")  # fmt: skip
    steps = np.diff(stamps)
    back = np.flatnonzero(steps < 0)
    if len(back):
        report.error("order", f"{name}: {len(back)} stamps go backwards", float(stamps[back[0]] - begin))
    silences = np.concatenate([[received[0] - begin], np.diff(received), [end - received[-1]]])
    stream.longest_gap = round(float(max(silences.max(), steps.max(initial=0.0))), 4)
    if len(steps):
        period = float(np.median(steps))
        if period > 0:
            stream.hz = round(1.0 / period, 2)
            expected = (stamps[-1] - stamps[0]) / period + 1
            gaps = steps[steps > LOST * period]
            stream.lost = round(float(np.round(gaps / period - 1).sum() / max(expected, 1)), 4)
            if stream.lost > MOST_LOST:
                report.warn("lost", f"{name}: {stream.lost:.1%} of the messages at {stream.hz:g} Hz are not there")
    _gaps(report, name, stamps, steps, most, begin)
    for where, silence in (("begins", silences[0]), ("ends", silences[-1])):
        if silence > most:
            side = "after the recording began" if where == "begins" else "before it ended"
            report.error("gap", f"{name} {where} {silence:.2f} s {side}; {most:g} s are allowed")


def _gaps(
    report: CheckReport, name: str, stamps: np.ndarray, steps: np.ndarray, most: float, begin: float
) -> None:
    found = np.flatnonzero(steps > most)
    for k in found[np.argsort(-steps[found])][:SHOWN]:
        at = float(stamps[k] - begin)
        report.error("gap", f"{name} paused for {steps[k]:.2f} s at {at:.2f} s; {most:g} s are allowed", at)
    if len(found) > SHOWN:
        report.error("gap", f"{name} has {len(found) - SHOWN} more gaps of over {most:g} s")


def _finite(report: CheckReport, name: str, joints: Joints, begin: float, unheard: tuple[str, ...]) -> None:
    bad = ~np.isfinite(joints.position)
    if not bad.any() and not joints.flawed.any():
        return
    silent = [joint for joint, column in zip(joints.names, bad.all(axis=0), strict=True) if column]
    missing = [joint for joint in silent if joint not in unheard]
    if missing:
        report.error("joints", f"{name} never names {', '.join(missing)}; is it the right robot file?")
    partly = np.flatnonzero(bad[:, ~bad.all(axis=0)].any(axis=1) | joints.flawed)
    if len(partly):
        at = float(joints.time[partly[0]] - begin)
        report.error("joints", f"{name}: {len(partly)} messages lack a joint or hold one that is not finite", at)


def _skew(episode: RecordedEpisode, report: CheckReport, most: float) -> None:
    """Judge how far a camera's images are from the other camera's and from the joint states nearest to them."""
    stamps = {name: np.sort(times) for name, times in episode.camera_stamps.items() if len(times)}
    others = dict(stamps)
    if len(episode.measured.time):
        others["joint_states"] = np.sort(episode.measured.time)
    for first, times in stamps.items():
        for second, reference in others.items():
            if second == first or (second < first and second != "joint_states"):
                continue
            apart = np.abs(reference[nearest(reference, times)] - times)
            p99 = float(np.percentile(apart, 99))
            report.numbers[f"skew_ms_{first}_{second}_p99"] = round(p99 * 1e3, 2)
            if p99 > most:
                report.error("skew", f"{first} and {second} are {p99 * 1e3:.0f} ms apart (p99); {most * 1e3:.0f} "
                             "ms are allowed")  # fmt: skip


def _policy(episode: RecordedEpisode, report: CheckReport) -> None:
    chunks = episode.chunks
    report.numbers["chunks"] = len(chunks)
    for stage in ("total", "frame_to_trajectory"):
        told = [c["timings_ms"].get(stage) for c in chunks if isinstance(c.get("timings_ms"), dict)]
        values = [value for value in told if isinstance(value, (int, float))]
        if values:
            report.numbers[f"{stage}_ms_p50"] = round(float(np.percentile(values, 50)), 2)
            report.numbers[f"{stage}_ms_p99"] = round(float(np.percentile(values, 99)), 2)
    if abs(len(chunks) - len(episode.trajectories)) > 1:  # the last one may have come as the recording ended
        report.error("missing", f"{len(episode.trajectories)} trajectories of the policy, {len(chunks)} chunk_info")
    hashes = {str(c["bundle_hash"]) for c in chunks if c.get("bundle_hash")}
    label = episode.bag.labels.get("bundle_hash")
    if len(hashes) > 1 or (label and hashes and {label} != hashes):
        report.error("label", f"chunks of bundle {', '.join(sorted(hashes))}; the label says {label or 'nothing'}")
