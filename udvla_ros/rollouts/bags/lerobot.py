"""Bags to a LeRobotDataset v3.0, written with pyarrow alone: parquet with the pictures in it, and the meta files.

The ``lerobot`` package itself is not needed to write (it pins its own torch, and brings far more than a data set);
it loads what this writes. Pictures are PNG inside the parquet (``dtype: image``): exact, no codec needed.
``action`` is where the joints were commanded to be one step later, or the TCP step by choice.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from udvla_ros.rollouts.bags.export import ExportReport, Taken, Wish, nothing_line, refuse_full, taken_from
from udvla_ros.rollouts.bags.topic import BagError
from udvla_ros.rollouts.episodes import write_atomically

if TYPE_CHECKING:
    import pyarrow

VERSION = "v3.0"
FILE_BYTES = 100 * 2**20  # of one data file, as LeRobot has it
PER_FOLDER = 1000  # files of one chunk folder
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
KEPT = 2**17  # rows of a vector that are kept for its quantiles: 3.6 hours at 10 Hz
GROUP = 50  # episodes of a row group of the meta file
QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
COUNTERS = ("frame_index", "episode_index", "index", "task_index", "intervention")


def export_lerobot(folders: Sequence[Path], out: Path, wish: Wish) -> ExportReport:
    """Write the bags' episodes as a LeRobotDataset.

    ``action`` is where the joints were commanded to be, in the robot's units, unless ``wish.space`` asks for one of
    the policy's spaces. ``intervention`` is whose each action was.

    Raises:
        BagError: the output is not empty, no episode fits, or no robot prevails.
        ModuleNotFoundError: pyarrow is not installed.
    """
    import pyarrow  # noqa: F401  (told before any work is done)

    refuse_full(out)
    report = ExportReport("lerobot", str(out))
    writer = _Writer(out, wish.space)
    try:
        for taken in taken_from(folders, wish, report):
            writer.add(taken)
        if not report.taken:
            raise BagError(nothing_line(report, wish))
        writer.finish()
    finally:
        writer.close()
    return report


class _Statistics:
    """What normalisation needs of one feature. Nothing grows with the data: pictures are histograms, vectors sums.

    Quantiles of vectors are exact up to ``KEPT`` rows; beyond, they are those of every second row, every fourth, ...
    """

    def __init__(self, picture: bool) -> None:
        self.picture = picture
        self.rows: list[np.ndarray] = []
        self.kept, self.stride = 0, 1
        self.mean, self.apart = np.zeros(1), np.zeros(1)  # float64 [d], and the sum of squared distances from it
        self.low, self.high = np.full(1, np.inf), np.full(1, -np.inf)
        self.histogram = np.zeros((3, 256), np.int64)
        self.frames = 0

    def add(self, values: np.ndarray) -> None:
        before, self.frames = self.frames, self.frames + len(values)
        if self.picture:
            for channel in range(3):
                self.histogram[channel] += np.bincount(values[..., channel].reshape(-1), minlength=256)
            return
        rows = values.reshape(len(values), -1)
        mean = rows.mean(0, dtype=float)
        between = mean - self.mean
        self.apart = self.apart + ((rows - mean) ** 2).sum(0) + between**2 * (before * len(rows) / self.frames)
        self.mean = self.mean + between * (len(rows) / self.frames)
        self.low, self.high = np.minimum(self.low, rows.min(0)), np.maximum(self.high, rows.max(0))
        self.rows.append(rows[-before % self.stride :: self.stride].copy())
        self.kept += len(self.rows[-1])
        if self.kept > KEPT:
            self.rows = [np.concatenate(self.rows)[::2]]
            self.kept, self.stride = len(self.rows[0]), 2 * self.stride

    def told(self) -> dict[str, Any]:
        """Return min, max, mean, std, count and quantiles as nested lists; pictures as fractions of 255."""
        if not self.picture:
            found = {"min": self.low, "max": self.high, "mean": self.mean, "std": np.sqrt(self.apart / self.frames)}
            rows = np.concatenate(self.rows)
            found |= {name: np.quantile(rows, q, axis=0) for name, q in QUANTILES.items()}
            return {**{name: value.astype(float).tolist() for name, value in found.items()}, "count": [self.frames]}
        levels, share = np.arange(256) / 255.0, self.histogram / self.histogram.sum(axis=1, keepdims=True)
        mean = share @ levels
        found = {
            "min": levels[(self.histogram > 0).argmax(axis=1)],
            "max": levels[255 - (self.histogram[:, ::-1] > 0).argmax(axis=1)],
            "mean": mean, "std": np.sqrt(np.maximum(share @ levels**2 - mean**2, 0.0)),
        }  # fmt: skip
        reached = np.cumsum(share, axis=1)
        found |= {name: levels[(reached >= q - 1e-12).argmax(axis=1)] for name, q in QUANTILES.items()}
        return {**{name: value.reshape(3, 1, 1).tolist() for name, value in found.items()}, "count": [self.frames]}


class _Writer:
    """Data files as they fill; the meta files at the end, so that a torn export does not look whole."""

    def __init__(self, out: Path, space: str) -> None:
        self.out, self.space = out, space
        self.features: dict[str, dict[str, Any]] = {}
        self.hz = 0.0
        self.robot = ""
        self.tasks: dict[str, int] = {}
        self.episodes = 0
        self._rows: list[dict[str, Any]] = []  # of the episodes' meta file, that wait to be written
        self._about: Any = None
        self.statistics: dict[str, _Statistics] = {}
        self.frames = 0
        self._file = -1
        self._bytes = 0
        self._parquet: Any = None

    def add(self, taken: Taken) -> None:
        """Write one episode."""
        columns = self._columns(taken)
        count = len(taken.steps)
        task = self.tasks.setdefault(taken.instruction, len(self.tasks))
        number = self.episodes
        columns |= {
            "timestamp": (np.arange(count) * taken.steps.dt).astype(np.float32),
            "frame_index": np.arange(count, dtype=np.int64),
            "episode_index": np.full(count, number, np.int64),
            "index": np.arange(self.frames, self.frames + count, dtype=np.int64),
            "task_index": np.full(count, task, np.int64),
            "intervention": taken.steps.by.astype(np.int64),
        }
        statistics: dict[str, Any] = {}
        for name, values in columns.items():
            picture = name.startswith("observation.images.")
            own = _Statistics(picture)
            own.add(values)
            self.statistics.setdefault(name, _Statistics(picture)).add(values)
            statistics |= {f"stats/{name}/{key}": value for key, value in own.told().items()}
        self._write(columns)
        self._rows.append({
            "episode_index": number, "tasks": [taken.instruction], "length": count,
            "data/chunk_index": self._file // PER_FOLDER, "data/file_index": self._file % PER_FOLDER,
            "dataset_from_index": self.frames, "dataset_to_index": self.frames + count,
            "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0, **statistics,
        })  # fmt: skip
        self.frames, self.episodes = self.frames + count, self.episodes + 1
        if len(self._rows) == GROUP:
            self._tell_episodes()

    def _tell_episodes(self) -> None:
        """Write the rows that wait into the meta file, which gets its name when all is written."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self._about is None:
            table = pa.Table.from_pylist(self._rows)
            (self.out / EPISODES).parent.mkdir(parents=True, exist_ok=True)
            self._about = pq.ParquetWriter(self.out / f"{EPISODES}.part", table.schema)
        else:
            table = pa.Table.from_pylist(self._rows, schema=self._about.schema)
        self._about.write_table(table)
        self._rows.clear()

    def _columns(self, taken: Taken) -> dict[str, np.ndarray]:
        steps = taken.steps
        known = np.isfinite(steps.measured).all(axis=0)  # a gripper without feedback has no state
        every = taken.robot.command_names
        names = [name for name, there in zip(every, known, strict=True) if there]
        action = steps.actions[:, 0] if self.space else steps.targets[:, 0]
        if not self.features:
            vectors = {"observation.state": names, "action": list(taken.action["units"]) if self.space else list(every)}
            self.features = {
                f"observation.images.{name}": {
                    "dtype": "image", "shape": list(pictures.shape[1:]), "names": ["height", "width", "channels"],
                }
                for name, pictures in steps.images.items()
            } | {
                name: {"dtype": "float32", "shape": [len(columns)], "names": columns}
                for name, columns in vectors.items()
            }  # fmt: skip
            self.hz, self.robot = round(1.0 / steps.dt, 6), taken.robot.name
        return {f"observation.images.{name}": pictures[:-1] for name, pictures in steps.images.items()} | {
            "observation.state": steps.measured[:-1, known].astype(np.float32),
            "action": action.astype(np.float32),
        }

    def _write(self, columns: dict[str, np.ndarray]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        arrays: dict[str, pa.Array] = {}
        for name, values in columns.items():
            if name.startswith("observation.images."):
                pictures = [{"bytes": _png(image), "path": None} for image in values]
                arrays[name] = pa.array(pictures, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
            elif values.ndim == 2:
                flat = pa.array(values.reshape(-1), pa.float32())
                arrays[name] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
            else:
                arrays[name] = pa.array(values)
        table = pa.table(arrays)
        if self._parquet is None or self._bytes + table.nbytes > FILE_BYTES:
            self._end_file()
            self._file, self._bytes = self._file + 1, 0
            name = DATA_PATH.format(chunk_index=self._file // PER_FOLDER, file_index=self._file % PER_FOLDER)
            path = self.out / name
            path.parent.mkdir(parents=True, exist_ok=True)
            self._parquet = pq.ParquetWriter(path, table.schema, compression="snappy")
        self._parquet.write_table(table)
        self._bytes += table.nbytes

    def close(self) -> None:
        """End the files."""
        self._end_file()
        if self._about is not None:
            self._about.close()

    def _end_file(self) -> None:
        if self._parquet is not None:
            self._parquet.close()
            self._parquet = None

    def finish(self) -> None:
        """Write the meta files."""
        import pyarrow.parquet as pq

        if self._rows:
            self._tell_episodes()
        self.close()
        meta = self.out / "meta"
        (self.out / f"{EPISODES}.part").rename(self.out / EPISODES)
        pq.write_table(_tasks(self.tasks), meta / "tasks.parquet")
        _json(meta / "stats.json", {name: statistics.told() for name, statistics in self.statistics.items()})
        counters = {name: {"dtype": "int64", "shape": [1], "names": None} for name in COUNTERS}
        _json(meta / "info.json", {
            "codebase_version": VERSION, "robot_type": self.robot, "total_episodes": self.episodes,
            "total_frames": self.frames, "total_tasks": len(self.tasks), "chunks_size": PER_FOLDER,
            "data_files_size_in_mb": FILE_BYTES // 2**20, "video_files_size_in_mb": 200,
            "fps": int(self.hz) if float(self.hz).is_integer() else self.hz,
            "splits": {"train": f"0:{self.episodes}"}, "data_path": DATA_PATH, "video_path": None,
            "features": {
                **self.features, "timestamp": {"dtype": "float32", "shape": [1], "names": None}, **counters,
            },
        })  # fmt: skip


def _png(image: np.ndarray) -> bytes:
    done, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not done:
        raise BagError(f"a picture of shape {image.shape} cannot be encoded as PNG")
    return data.tobytes()


def _json(path: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=4).encode()
    write_atomically(path, lambda handle: handle.write(text))


def _tasks(tasks: dict[str, int]) -> pyarrow.Table:
    """Return the table of sentences as pandas would write it: the sentence is the index."""
    import pyarrow as pa

    index = "__index_level_0__"
    columns = [
        {"name": name, "field_name": field, "pandas_type": kind, "numpy_type": kept, "metadata": None}
        for name, field, kind, kept in (
            ("task_index", "task_index", "int64", "int64"), (None, index, "unicode", "object"),
        )
    ]  # fmt: skip
    told = {"index_columns": [index], "column_indexes": [], "columns": columns, "pandas_version": "2.2.0"}
    table = pa.table({"task_index": pa.array(list(tasks.values()), pa.int64()), index: pa.array(list(tasks))})
    return table.replace_schema_metadata({"pandas": json.dumps(told)})
