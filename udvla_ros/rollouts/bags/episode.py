"""What happened in a recorded episode, as arrays: joints, commands, modes, chunks, pictures.

Joints follow the robot file's order whatever the order of the messages. Times are seconds on the clock of the
stamps; what carries no stamp (modes, instructions) has the time of its reception.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from udvla_ros.errors import ConfigError, ObservationError
from udvla_ros.motion.measured import Measured
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.policy.words import means_hold
from udvla_ros.rollouts.bags.reader import Bag, header_stamp, seconds
from udvla_ros.rollouts.bags.topic import BagError
from udvla_ros.rollouts.frames import cropped
from udvla_ros.rollouts.images import message_to_rgb

COMMAND, MODE, REASON = "arbiter/command", "arbiter/mode", "arbiter/mode_reason"
INSTRUCTION, CHUNK, CHUNK_INFO = "instruction", "policy/joint_trajectory", "policy_node/chunk_info"
PREDICTED = "policy_node/predicted_image"
SIM_EPISODE = "sim_node/episode"
STALE = 0.5  # s after which a joint that is not heard any more has no known position
FUTURE, LATE = 0.02, 0.1  # s by which stamps may lie after and before their reception and still be of this clock
SAME_STAMP = 2e-6  # s: a stamp loses up to a microsecond between float seconds and nanoseconds


@dataclass(frozen=True)
class Joints:
    """Joint states by name: ``time`` [n] of the stamps, ``received`` [n], position and velocity [n, d].

    Put together as the arbiter does it (:class:`udvla_ros.motion.measured.Measured`): arm and gripper may come in
    messages of their own, and a joint keeps its last position until it is heard again, for ``STALE`` s. NaN: a joint
    that nobody names, or that was not heard for longer; velocities where there are none. ``flawed`` [n] marks
    messages that held a number that is not finite. Where stamps are none, or of another clock, ``time`` is that of
    reception, and ``clock`` says so.
    """

    names: tuple[str, ...]
    time: np.ndarray
    received: np.ndarray
    position: np.ndarray
    velocity: np.ndarray
    flawed: np.ndarray
    clock: str = ""

    def at(self, times: np.ndarray) -> np.ndarray:
        """Return positions [len(times), d], linear between the neighbours; the ends hold."""
        order = np.argsort(self.time, kind="stable")
        return np.stack(
            [np.interp(times, self.time[order], column) for column in self.position[order].T], axis=1
        )


@dataclass
class Trajectory:
    """One chunk as it was sent: names, ``times`` [k] after ``stamp`` (s) and positions [k, d]."""

    stamp: float
    received: float
    names: tuple[str, ...]
    times: np.ndarray
    positions: np.ndarray


@dataclass
class Told:
    """A text topic: what was said when (s of reception)."""

    time: list[float] = field(default_factory=list)
    text: list[str] = field(default_factory=list)

    def at(self, when: float) -> str:
        """Return what held at a time; before the first, the first: latched topics come late to a recorder."""
        if not self.text:
            return ""
        return self.text[max(0, bisect_left(self.time, when + 1e-9) - 1)]


def strange_clock(stamps: np.ndarray, received: np.ndarray) -> str:
    """Return what is wrong with stamps [n] beside the times of reception [n], s; nothing where they can be used."""
    if not len(stamps):
        return ""
    late = received - stamps
    if (stamps <= 0).any():
        return "carry no time"
    if not -FUTURE <= float(np.median(late)) <= LATE:
        return f"are of another clock, {float(np.median(late)):+.2f} s from their reception"
    return ""


def robot_of(bag: Bag, override: str = "", cameras: Sequence[str] = ()) -> RobotDescription:
    """Return the robot file that a bag was recorded with, or another one by name.

    Args:
        cameras: the only ones that matter; none: all.

    Raises:
        BagError: the bag does not say, or its robot file is not here, or names no such camera.
    """
    name = override or bag.labels.get("robot", "")
    if not name:
        raise BagError(f"'{bag.folder}' does not say which robot it is of; give the robot file with --robot")
    try:
        robot = RobotDescription.load(name)
    except ConfigError as error:
        raise BagError(f"robot file '{name}' of '{bag.folder}': {error}; give it with --robot") from error
    if unknown := [camera for camera in cameras if camera not in robot.cameras]:
        raise BagError(f"robot '{robot.name}' has no camera {', '.join(unknown)}; it has {', '.join(robot.cameras)}")
    return replace(robot, cameras={camera: robot.cameras[camera] for camera in cameras}) if cameras else robot


class RecordedEpisode:
    """One bag and its robot file; topics are read when they are first asked for."""

    def __init__(self, bag: Bag, robot: RobotDescription) -> None:
        self.bag, self.robot = bag, robot

    @cached_property
    def measured(self) -> Joints:
        """Measured joints."""
        return self.joints(self.robot.topics.get("joint_states", "joint_states"))

    @cached_property
    def commanded(self) -> Joints:
        """What the arbiter commanded, 100 times a second."""
        return self.joints(COMMAND)

    def joints(self, topic: str) -> Joints:
        """Return the joint states of a topic; of length 0 where it was not recorded."""
        names, arm = self.robot.command_names, set(self.robot.joints)
        measured = Measured(self.robot)
        stale = max(STALE, float(self.robot.arbiter.get("joint_state_timeout", STALE)))
        heard = dict.fromkeys(names, -np.inf)
        rows: list[tuple[float, float, np.ndarray, np.ndarray, bool]] = []
        leader = ""  # the joint whose messages make a row: others only add to it
        for _, heard_at, message in self.bag.read(topic):
            said = [n for n, q in zip(message.name, message.position, strict=False) if n in heard and np.isfinite(q)]
            bad = len(said) < sum(n in heard for n in message.name)
            measured.update(message.name, message.position, message.velocity, heard_at)
            heard |= dict.fromkeys(said, heard_at)
            mine = [name for name in message.name if name in arm]
            leader = leader or (mine[0] if mine else "")
            if leader not in mine:
                continue
            at, speed = np.full(len(names), np.nan), np.full(len(names), np.nan)
            at[: len(arm)], speed[: len(arm)] = measured.q, measured.qd
            if len(names) > len(arm):
                at[-1] = measured.gripper
            at[[heard_at - heard[name] > stale for name in names]] = np.nan
            if len(message.velocity) != len(message.name):
                speed[:] = np.nan
            elif len(names) > len(arm) and names[-1] in message.name:
                speed[-1] = message.velocity[list(message.name).index(names[-1])]
            rows.append((seconds(message.header.stamp), heard_at, at, speed, bad))
        wide = np.zeros((0, len(names)))
        position = np.array([row[2] for row in rows]) if rows else wide
        # What came before the first word of a joint that speaks a little later is not yet a state.
        known = np.isfinite(position)
        whole = known[:, known.any(axis=0)].all(axis=1)
        begin = int(whole.argmax()) if whole.any() and rows[int(whole.argmax())][1] - rows[0][1] < stale else 0
        rows, position = rows[begin:], position[begin:]
        stamps, received = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
        clock = strange_clock(stamps, received)
        velocity = np.array([row[3] for row in rows]) if rows else wide
        flawed = np.array([row[4] for row in rows], bool)
        return Joints(names, received if clock else stamps, received, position, velocity, flawed, clock)

    def told(self, topic: str) -> Told:
        """Return what was said on a text topic."""
        said = Told()
        for _, received, message in self.bag.read(topic):
            said.time.append(received)
            said.text.append(message.data)
        return said

    @cached_property
    def modes(self) -> Told:
        """Who had the arm."""
        return self.told(MODE)

    @cached_property
    def reasons(self) -> Told:
        """Why."""
        return self.told(REASON)

    @cached_property
    def instructions(self) -> Told:
        """What was asked for."""
        return self.told(INSTRUCTION)

    @property
    def instruction(self) -> str:
        """The sentence: the recorder's label, else the last one published."""
        return self.bag.labels.get("instruction") or (self.instructions.text[-1] if self.instructions.text else "")

    def sentences(self) -> list[tuple[float, str]]:
        """Return what was asked for from when on, s; one entry where it did not change, or was labelled otherwise."""
        told = zip(self.instructions.time, self.instructions.text, strict=True)
        said = [(t, s) for t, s in told if not means_hold(s)]
        turns = [(t, s) for k, (t, s) in enumerate(said) if not k or s != said[k - 1][1]]
        if len(turns) < 2 or self.instruction != turns[-1][1]:
            return [(-np.inf, self.instruction)]
        return [(-np.inf, turns[0][1]), *turns[1:]]

    @property
    def outcome(self) -> str:
        """``success``, ``failure``, ... as labelled; ``unknown`` where nobody said."""
        return self.bag.labels.get("outcome") or "unknown"

    @cached_property
    def chunks(self) -> list[dict[str, Any]]:
        """``chunk_info`` of each chunk, with ``received`` (s); what is not JSON is left out."""
        found = []
        for _, received, message in self.bag.read(CHUNK_INFO):
            try:
                found.append({**json.loads(message.data), "received": received})
            except (ValueError, TypeError):
                continue
        return found

    @cached_property
    def trajectories(self) -> list[Trajectory]:
        """The policy's chunks as they were sent."""
        found = []
        for _, received, message in self.bag.read(CHUNK):
            times = [p.time_from_start.sec + p.time_from_start.nanosec * 1e-9 for p in message.points]
            positions = np.array([np.asarray(p.positions, float) for p in message.points])
            names = tuple(message.joint_names)
            found.append(Trajectory(seconds(message.header.stamp), received, names, np.array(times), positions))
        return found

    def camera_topic(self, camera: str) -> str | None:
        """Return the recorded topic of a camera of the robot file, raw or compressed."""
        name = self.robot.cameras[camera]["topic"]
        for topic in (name, f"{name}/compressed", name.removesuffix("/compressed")):
            found = self.bag.find(topic)
            if found is not None and self.bag.topics[found].count:
                return found
        return None

    @cached_property
    def camera_stamps(self) -> dict[str, np.ndarray]:
        """Stamps (s) of the images of each recorded camera, in the order of reception."""
        return {camera: times[:, 0] for camera, times in self.camera_times.items()}

    @cached_property
    def camera_times(self) -> dict[str, np.ndarray]:
        """Stamp and reception (s) [n, 2] of each recorded camera's images."""
        topics = {camera: topic for camera in self.robot.cameras if (topic := self.camera_topic(camera))}
        times: dict[str, list[tuple[float, float]]] = {camera: [] for camera in topics}
        asked = {topic: camera for camera, topic in topics.items()}
        for raw in self.bag.raw(asked):
            times[asked[raw.topic]].append((header_stamp(raw.data), raw.received * 1e-9))
        return {camera: np.array(rows).reshape(-1, 2) for camera, rows in times.items()}

    def frames(self, camera: str, wanted: np.ndarray | None = None) -> Iterator[tuple[float, np.ndarray]]:
        """Yield (stamp, uint8 RGB [h, w, 3]) of a camera, decoded as the policy's images are.

        Args:
            wanted: stamps; only images of these are decoded.

        Raises:
            BagError: the camera was not recorded, or an image cannot be decoded.
        """
        topic = self.camera_topic(camera)
        if topic is None:
            raise BagError(f"'{self.bag.folder}' has no images of camera '{camera}'")
        chosen = None if wanted is None else np.sort(np.asarray(wanted, float))
        entry = self.robot.cameras[camera]
        for raw in self.bag.raw([topic]):
            stamp = header_stamp(raw.data)
            if chosen is not None and not _has(chosen, stamp):
                continue
            try:
                picture = message_to_rgb(self.bag.decode(raw), topic, entry.get("encoding", ""))
                yield stamp, cropped(picture, camera, entry)
            except ObservationError as error:
                raise BagError(f"'{self.bag.folder}': {error}") from error

    def pictures(self, wanted: Mapping[str, np.ndarray]) -> dict[str, dict[float, np.ndarray]]:
        """Return images by camera and stamp."""
        return {camera: dict(self.frames(camera, stamps)) for camera, stamps in wanted.items()}

    def predicted(self, camera: str) -> Iterator[tuple[float, float, np.ndarray]]:
        """Yield (time it is a picture of, s of reception, uint8 RGB) of the futures the policy foresaw."""
        first = next(iter(self.robot.cameras), None)
        topic = PREDICTED if camera == first else f"{PREDICTED}/{camera}"
        for _, received, message in self.bag.read(topic):
            yield seconds(message.header.stamp), received, message_to_rgb(message, topic)

    @cached_property
    def simulated(self) -> dict[str, Any]:
        """The simulation's last word on its episode; empty on a real arm."""
        said = self.told(SIM_EPISODE).text
        try:
            return dict(json.loads(said[-1])) if said else {}
        except (ValueError, TypeError):
            return {}


def _has(sorted_stamps: np.ndarray, stamp: float) -> bool:
    k = int(np.searchsorted(sorted_stamps, stamp))
    return any(abs(sorted_stamps[j] - stamp) <= SAME_STAMP for j in (k - 1, k) if 0 <= j < len(sorted_stamps))


def nearest(sorted_times: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return for each wanted time the index of the nearest of the sorted times."""
    right = np.clip(np.searchsorted(sorted_times, wanted), 1, max(1, len(sorted_times) - 1))
    left = right - 1
    right = np.minimum(right, len(sorted_times) - 1)
    return np.where(np.abs(sorted_times[left] - wanted) <= np.abs(sorted_times[right] - wanted), left, right)
