"""What happened in a recorded episode, as arrays: joints, commands, modes, chunks, pictures.

Joints follow the robot file's order whatever the order of the messages. Times are seconds on the clock of the
stamps; what carries no stamp (modes, instructions) has the time of its reception.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from udvla_ros.errors import ConfigError, ObservationError
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.rollouts.bags.reader import Bag, header_stamp, seconds
from udvla_ros.rollouts.bags.topic import BagError
from udvla_ros.rollouts.images import message_to_rgb

COMMAND, MODE, REASON = "arbiter/command", "arbiter/mode", "arbiter/mode_reason"
INSTRUCTION, CHUNK, CHUNK_INFO = "instruction", "policy/joint_trajectory", "policy_node/chunk_info"
PREDICTED = "policy_node/predicted_image"
SIM_EPISODE = "sim_node/episode"
SAME_STAMP = 2e-6  # s: a stamp loses up to a microsecond between float seconds and nanoseconds


@dataclass(frozen=True)
class Joints:
    """Joint states by name: ``time`` [n] of the stamps, ``received`` [n], position and velocity [n, d].

    Columns of joints that no message names are NaN; so are velocities where the messages have none.
    """

    names: tuple[str, ...]
    time: np.ndarray
    received: np.ndarray
    position: np.ndarray
    velocity: np.ndarray

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


def robot_of(bag: Bag, override: str = "") -> RobotDescription:
    """Return the robot file that a bag was recorded with, or another one by name.

    Raises:
        BagError: the bag does not say, or its robot file is not here.
    """
    name = override or bag.labels.get("robot", "")
    if not name:
        raise BagError(f"'{bag.folder}' does not say which robot it is of; give the robot file with --robot")
    try:
        return RobotDescription.load(name)
    except ConfigError as error:
        raise BagError(f"robot file '{name}' of '{bag.folder}': {error}; give it with --robot") from error


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
        names = self.robot.command_names
        column = {name: k for k, name in enumerate(names)}
        rows: list[tuple[float, float, np.ndarray, np.ndarray]] = []
        for _, received, message in self.bag.read(topic):
            position, velocity = np.full(len(names), np.nan), np.full(len(names), np.nan)
            speeds = message.velocity if len(message.velocity) == len(message.name) else ()
            for k, name in enumerate(message.name):
                if name in column and k < len(message.position):
                    position[column[name]] = message.position[k]
                    if len(speeds):
                        velocity[column[name]] = speeds[k]
            # A message about other joints (a gripper's own driver, say) tells nothing of the arm.
            if not np.isnan(position[: len(self.robot.joints)]).all():
                rows.append((seconds(message.header.stamp), received, position, velocity))
        wide = np.zeros((0, len(names)))
        return Joints(
            names,
            np.array([row[0] for row in rows]),
            np.array([row[1] for row in rows]),
            np.array([row[2] for row in rows]) if rows else wide,
            np.array([row[3] for row in rows]) if rows else wide,
        )

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
        for raw in self.bag.raw([topic]):
            stamp = header_stamp(raw.data)
            if chosen is not None and not _has(chosen, stamp):
                continue
            try:
                yield stamp, message_to_rgb(self.bag.decode(raw), topic)
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
