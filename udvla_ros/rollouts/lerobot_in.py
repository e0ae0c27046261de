"""A LeRobotDataset as episodes to learn from: v3.0 and v2.1, read with pyarrow alone.

What a number means is never guessed: ``observation.state`` and ``action`` must name the robot file's joints (a suffix
``.pos`` is LeRobot's own), radians unless ``degrees`` is said, and lie within the arm's limits. Pictures must be in the
parquet (``dtype: image``); those in videos need a decoder that is not a part of this package.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from udvla_ros.motion.robot import RobotDescription
from udvla_ros.rollouts.actions import actions_of, default_space, described
from udvla_ros.rollouts.bags.export import Taken, refuse_full, to_episode
from udvla_ros.rollouts.bags.steps import CHUNK, Steps
from udvla_ros.rollouts.episodes import By, DatasetError
from udvla_ros.rollouts.frames import cropped, fitted
from udvla_ros.rollouts.writing import DatasetWriter

if TYPE_CHECKING:
    import pyarrow

PICTURES = "observation.images."
SLACK = 0.05  # rad beyond the hard limits that a measurement may show


@dataclass(frozen=True)
class Reading:
    """How a data set is read.

    Attributes:
        cameras: the robot's camera to the data set's feature; empty: each camera by its own name.
        sizes: (height, width) of cameras whose pictures are resized.
        chunk, space: as ``udvla bag export`` takes them.
        degrees: the arm's joints are in degrees.
        gripper: the data set's values of an open and a closed gripper; None: those of the robot file.
    """

    cameras: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    chunk: int = CHUNK
    space: str = ""
    degrees: bool = False
    gripper: tuple[float, float] | None = None


def import_lerobot(folder: Path, out: Path, robot: RobotDescription, reading: Reading, command: str = "") -> int:
    """Write the data set's episodes as shards and ``dataset.json``; returns how many.

    A sentence that changes within an episode begins another one. The last frame of each has no action.

    Raises:
        DatasetError: the folder is no such data set, names other joints or cameras, or its numbers are no radians.
        BagError: the output is not empty.
        ModuleNotFoundError: pyarrow is not installed.
    """
    import pyarrow.parquet as pq

    refuse_full(out)
    source = _Source(Path(folder), robot, reading)
    writer = DatasetWriter(out)
    for path in source.files:
        table = pq.read_table(path)
        numbers = table["episode_index"].to_numpy()
        tasks = table["task_index"].to_numpy()
        edges = np.flatnonzero((np.diff(numbers) != 0) | (np.diff(tasks) != 0)) + 1
        for begin, end in zip([0, *edges], [*edges, len(numbers)], strict=True):
            if end - begin > 1:
                writer.add(to_episode(source.taken(table.slice(begin, end - begin), int(tasks[begin]))))
    if not writer.episodes:
        raise DatasetError(f"'{folder}' has no episode of two frames or more")
    writer.finish({
        "source": "lerobot", "command": command, "from": str(folder), "robots": {robot.name: writer.episodes},
        "action": source.action, "control_hz": source.action["control_hz"],
    })  # fmt: skip
    return writer.episodes


class _Source:
    """The data set's files and how its columns become the robot's."""

    def __init__(self, folder: Path, robot: RobotDescription, reading: Reading) -> None:
        self.folder, self.robot, self.reading = folder, robot, reading
        try:
            self.info = json.loads((folder / "meta/info.json").read_text(encoding="utf-8"))
            version, features, fps = self.info["codebase_version"], self.info["features"], float(self.info["fps"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"'{folder}' is no LeRobotDataset: meta/info.json: {error}") from error
        if not str(version).startswith(("v3.", "v2.1")):
            raise DatasetError(f"'{folder}' is of version {version}; v3.0 and v2.1 are read")
        self.files = sorted((folder / "data").rglob("*.parquet"))
        if not self.files:
            raise DatasetError(f"'{folder}' has no data/*.parquet; copy the whole data set")
        self.cameras = self._cameras(features)
        self.state = _places(folder, features, "observation.state", robot, robot.joints)
        self.command = _places(folder, features, "action", robot, robot.command_names)
        self.sentences = _sentences(folder)
        self.space = reading.space or default_space(robot)
        self.dt = 1.0 / fps
        self.action = described(robot, self.space, reading.chunk, fps)

    def _cameras(self, features: Mapping[str, Any]) -> dict[str, str]:
        there = [name for name in features if name.startswith(PICTURES)]
        cameras = dict(self.reading.cameras) or {name: PICTURES + name for name in self.robot.cameras}
        for camera, feature in cameras.items():
            if camera not in self.robot.cameras or feature not in there:
                raise DatasetError(
                    f"'{self.folder}' has the pictures {', '.join(there) or 'none'}, robot '{self.robot.name}' the "
                    f"cameras {', '.join(self.robot.cameras)}; say which is which: --camera {camera}=FEATURE"
                )
            if features[feature].get("dtype") != "image":
                raise DatasetError(
                    f"'{self.folder}': {feature} is a video; write the data set again with pictures (LeRobot: "
                    "use_videos=False)"
                )
        return cameras

    def taken(self, rows: pyarrow.Table, task: int) -> Taken:
        """Return one stretch under one sentence: T + 1 frames, T actions."""
        reading, robot = self.reading, self.robot
        act, measured = self._joints(rows, "action", self.command), self._joints(rows, "observation.state", self.state)
        commanded = np.concatenate([measured[:1], act[:-1]])  # [T+1, d+1]; an action is where to be a step later
        if np.isnan(commanded[0, -1]):
            commanded[0, -1] = act[0, -1]
        ahead = np.minimum(np.arange(len(act) - 1)[:, None] + np.arange(reading.chunk), len(act) - 1)
        targets = act[ahead]  # [T, K, d+1]
        path = np.concatenate([commanded[:-1, None], targets], axis=1)
        by = np.full(len(act) - 1, By.DEMONSTRATED, np.uint8)
        if "intervention" in rows.column_names:
            by = rows["intervention"].to_numpy()[:-1].astype(np.uint8)
        steps = Steps(
            self.dt, self.dt * np.arange(len(act)), {c: self._pictures(rows, c, f) for c, f in self.cameras.items()},
            measured, commanded, targets, np.stack([actions_of(row, robot, self.space) for row in path]),
            np.stack([robot.kinematics.forward(row[: len(robot.joints)]) for row in commanded]), by,
        )  # fmt: skip
        if task not in self.sentences:
            raise DatasetError(f"'{self.folder}': no sentence for task_index {task} in meta/tasks")
        return Taken(self.folder, steps, self.sentences[task], "unknown", {}, {}, robot, self.action)

    def _joints(self, rows: pyarrow.Table, column: str, places: Sequence[int | None]) -> np.ndarray:
        """Return [n, d (+1)] in the robot file's order and units; NaN for a gripper that is not told of."""
        values = np.stack(rows[column].to_numpy()).astype(float)
        found = np.stack([np.full(len(values), np.nan) if k is None else values[:, k] for k in places], axis=1)
        joints, limits, gripper = len(self.robot.joints), self.robot.limits, self.robot.gripper
        arm = np.radians(found[:, :joints]) if self.reading.degrees else found[:, :joints]
        beyond = (arm < limits.hard_lower - SLACK) | (arm > limits.hard_upper + SLACK) | ~np.isfinite(arm)
        if beyond.any():
            row, joint = np.argwhere(beyond)[0]
            raise DatasetError(
                f"'{self.folder}': {column} has {self.robot.joints[joint]} at {arm[row, joint]:.4g} rad, beyond the "
                f"limits of robot '{self.robot.name}'; are they degrees (--degrees), or of another robot?"
            )
        if gripper is not None and self.reading.gripper is not None:
            first, last = self.reading.gripper
            found[:, joints] = gripper.position((found[:, joints] - first) / (last - first))
        return np.column_stack([arm, found[:, joints:]])

    def _pictures(self, rows: pyarrow.Table, camera: str, feature: str) -> np.ndarray:
        entry, size = self.robot.cameras[camera], self.reading.sizes.get(camera)
        found = []
        for row in rows[feature].to_pylist():
            data = row.get("bytes") or b""
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
            if image is None:
                raise DatasetError(f"'{self.folder}': a picture of {feature} cannot be decoded; copy it again")
            image = cropped(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), camera, entry)
            found.append(image if size is None else fitted(image, camera, *size, entry))
        return np.stack(found)


def _places(
    folder: Path, features: Mapping[str, Any], column: str, robot: RobotDescription, needed: Sequence[str]
) -> list[int | None]:
    """Return where each of the robot's joints stands in a vector; None for a gripper that needs not be there."""
    names = features.get(column, {}).get("names")
    while isinstance(names, dict) and names:  # {"motors": [...]}
        names = next(iter(names.values()))
    names = [str(name).removesuffix(".pos") for name in names or ()]
    if missing := [name for name in needed if name not in names]:
        raise DatasetError(
            f"'{folder}': {column} names {', '.join(names) or 'nothing'}; robot '{robot.name}' also needs "
            f"{', '.join(missing)}: give the robot file of that arm, or call its joints as the data set does"
        )
    return [names.index(name) if name in names else None for name in robot.command_names]


def _sentences(folder: Path) -> dict[int, str]:
    """Return the sentences by index: v3.0 keeps them as pandas does, in the index of a parquet; v2.1 as JSON lines."""
    lines, table = folder / "meta/tasks.jsonl", folder / "meta/tasks.parquet"
    try:
        if lines.is_file():
            rows = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines() if line.strip()]
            return {int(row["task_index"]): str(row["task"]) for row in rows}
        import pyarrow.parquet as pq

        columns = pq.read_table(table).to_pydict()
        numbers = columns.pop("task_index")
        return {int(k): str(text) for k, text in zip(numbers, next(iter(columns.values())), strict=True)}
    except (OSError, ValueError, KeyError, StopIteration) as error:
        raise DatasetError(f"'{folder}': meta/tasks cannot be read: {error}") from error
