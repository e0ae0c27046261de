"""Bags to plain episodes: what ``udvla train`` learns from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from udvla_ros.errors import UdvlaError
from udvla_ros.rollouts import episodes as disk
from udvla_ros.rollouts.bags.check import check
from udvla_ros.rollouts.bags.episode import RecordedEpisode, robot_of
from udvla_ros.rollouts.bags.identity import Identity, differ, prevailing
from udvla_ros.rollouts.bags.reader import Bag
from udvla_ros.rollouts.bags.steps import CHUNK, Steps, by_sentence, take_steps
from udvla_ros.rollouts.bags.topic import BagError

SHARD = 50  # episodes of one file
UNKNOWN = -1
ANY = "any"


@dataclass(frozen=True)
class Wish:
    """What to export.

    Attributes:
        outcome: label an episode must have; ``any`` takes all.
        hz, chunk, sizes: see :func:`udvla_ros.rollouts.bags.steps.take_steps`.
        robot: robot file instead of the one recorded with.
    """

    outcome: str = "success"
    hz: float | None = None
    chunk: int = CHUNK
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    robot: str = ""


@dataclass
class ExportReport:
    """What became of the bags: ``taken`` folders, ``left_out`` folder to reason, ``notes`` of what was taken.

    ``unfit`` counts those left out for another reason than their outcome.
    """

    format: str
    out: str
    taken: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    steps: int = 0
    unfit: int = 0

    def leave_out(self, folder: Path, reason: str) -> None:
        """Note an episode that was wanted and cannot be taken."""
        self.left_out[str(folder)] = reason
        self.unfit += 1

    def as_dict(self) -> dict[str, Any]:
        """Return the report for JSON."""
        return dict(vars(self))


@dataclass
class Taken:
    """One episode on its way out."""

    folder: Path
    steps: Steps
    instruction: str
    outcome: str
    labels: dict[str, str]
    simulated: dict[str, Any]
    joint_names: tuple[str, ...]
    robot: str
    fraction: Any  # the gripper's position -> closed fraction, None without one


def taken_from(folders: Sequence[Path], wish: Wish, report: ExportReport, cameras: tuple[str, ...] | None = None
               ) -> Iterator[Taken]:  # fmt: skip
    """Yield the episodes that fit the wish and each other; the reasons of the others go into the report.

    All are judged before the first is taken: by :func:`udvla_ros.rollouts.bags.check.check`, and by whose they are.

    Raises:
        BagError: no robot prevails.
    """
    alike, kept = _fit(folders, wish, report)
    for folder in tqdm(kept, desc="export", unit="episode", disable=len(kept) < 2):
        try:
            found = list(_taken(folder, wish, cameras, alike))
        except UdvlaError as error:
            report.leave_out(folder, str(error))
            continue
        except Exception as error:  # one odd bag must not end the export of the others
            report.leave_out(folder, f"{type(error).__name__}: {' '.join(str(error).split())}")
            continue
        report.taken.append(str(folder))
        for one in found:
            report.steps += len(one.steps)
            yield one


@dataclass
class _Alike:
    """What the episodes of one export have in common: control rate and pictures' sizes, by the first that is taken."""

    hz: float = 0.0
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def agree(self, folder: Path, steps: Steps) -> None:
        hz = round(1.0 / steps.dt, 6)
        shapes = {name: pictures.shape[1:] for name, pictures in steps.images.items()}
        if self.hz and abs(hz - self.hz) > 1e-3:
            raise BagError(f"'{folder}' is at {hz:g} Hz, others at {self.hz:g}; give --hz")
        for name, shape in shapes.items():
            if self.shapes.get(name, shape) != shape:
                raise BagError(
                    f"'{folder}': camera '{name}' is {shape[1]}x{shape[0]}, the episodes before have "
                    f"{self.shapes[name][1]}x{self.shapes[name][0]}; give one size: --size {name}=HEIGHTxWIDTH"
                )
        self.hz, self.shapes = hz, shapes


def _fit(folders: Sequence[Path], wish: Wish, report: ExportReport) -> tuple[_Alike, list[Path]]:
    """Return the folders that are fit to learn from and of one robot; the reasons of the others are reported."""
    fit: dict[Path, Identity] = {}
    for folder in tqdm(folders, desc="check", unit="episode", disable=len(folders) < 2):
        found = check(folder, wish.robot)
        if wish.outcome not in (ANY, found.outcome or "unknown") and found.outcome is not None:
            report.left_out[str(folder)] = f"its outcome is {found.outcome or 'unknown'}"
        elif not found.good or found.identity is None:
            report.leave_out(folder, found.unfit)
        elif not found.instruction.strip():
            report.leave_out(folder, f"'{folder}' has no instruction")
        else:
            fit[folder] = found.identity
            for finding in found.findings:
                if finding.kind == "clock":
                    report.notes[str(folder)] = finding.text
    one = prevailing(fit.values())
    for folder, other in list(fit.items()):
        if one is not None and other != one:
            report.leave_out(folder, f"another robot than the others: {differ(one, other)}")
            del fit[folder]
    return _Alike(), list(fit)


def _taken(folder: Path, wish: Wish, cameras: tuple[str, ...] | None, alike: _Alike) -> Iterator[Taken]:
    """Yield one episode, or one for each sentence where another was given on the way."""
    with Bag(folder) as bag:
        robot = robot_of(bag, wish.robot)
        episode = RecordedEpisode(bag, robot)
        steps = take_steps(episode, wish.hz, wish.chunk, wish.sizes, cameras)
        alike.agree(folder, steps)
        for part, sentence in by_sentence(steps, episode.sentences()):
            yield Taken(
                folder, part, sentence, bag.labels.get("outcome") or "unknown", dict(bag.labels), episode.simulated,
                robot.command_names, robot.name, robot.gripper.fraction if robot.gripper else None,
            )  # fmt: skip


def to_episode(taken: Taken) -> disk.Episode:
    """Return a bag's steps in the format of demonstrations.

    What a real arm does not know is not made up: the cubes' poses are NaN, the seed is -1 outside simulation,
    ``task`` and ``colour`` are empty where only the sentence is known. Nothing disturbed the commands, so
    ``executed`` is the first step of ``intention``.
    """
    steps, count = taken.steps, len(taken.steps)
    task, _, colour = str(taken.simulated.get("task", "")).partition("/")
    if taken.fraction is None:
        raise BagError(f"'{taken.folder}': robot '{taken.robot}' has no gripper; plain episodes need one")
    seed = taken.simulated.get("seed")
    as_float = {name: np.asarray(value, np.float32) for name, value in {
        "intention": steps.actions,
        "executed": steps.actions[:, 0],
        "joints": steps.measured[:, :-1],
        "q_command": steps.commanded[:, :-1],
        "gripper": taken.fraction(steps.measured[:, -1]),
        "gripper_command": taken.fraction(steps.commanded[:, -1]),
        "tcp_command": steps.tcp,
        "cubes": np.full((count + 1, 3, 7), np.nan),
    }.items()}  # fmt: skip
    return disk.Episode(
        front=steps.images["front"], wrist=steps.images["wrist"], **as_float, instruction=taken.instruction,
        task=task, colour=colour, seed=seed if isinstance(seed, int) else UNKNOWN, attempt=0,
        success_step=count if taken.outcome == "success" else UNKNOWN, labelled=count,
    )  # fmt: skip


def export_episodes(folders: Sequence[Path], out: Path, wish: Wish, command: str = "") -> ExportReport:
    """Write shards and ``dataset.json`` of the bags' episodes.

    Raises:
        BagError: the output is not empty, no episode fits, or no robot prevails.
    """
    refuse_full(out)
    report = ExportReport("episodes", str(out))
    waiting: list[disk.Episode] = []
    shapes: dict[str, tuple[int, ...]] = {}
    kinds: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    hz = 0.0
    shards = frames = 0
    for taken in taken_from(folders, wish, report, disk.CAMERAS):
        episode = to_episode(taken)
        shapes, hz = {name: getattr(episode, name).shape[1:3] for name in disk.CAMERAS}, round(1.0 / taken.steps.dt, 6)
        waiting.append(episode)
        kinds[episode.task or "recorded"] += 1
        outcomes[taken.outcome] += 1
        frames += len(episode) + 1
        if len(waiting) == SHARD:
            disk.write_shard(out / f"shard-{shards:05d}.npz", waiting)
            waiting, shards = [], shards + 1
    if waiting:
        disk.write_shard(out / f"shard-{shards:05d}.npz", waiting)
        shards += 1
    if not report.taken:
        raise BagError(nothing_line(report, wish))
    description = {
        "format": disk.FORMAT, "version": disk.VERSION, "source": "bags", "command": command,
        "bags": report.taken, "outcomes": dict(outcomes), "episodes": sum(kinds.values()),
        "episodes_per_task": dict(kinds), "shards": shards, "frames": frames, "actions": report.steps,
        "control_hz": hz, "intention_shape": [wish.chunk, 7],
        "action_space": "tcp_delta, base frame: dxyz (m), rotation vector (rad), gripper +1 close -1 open",
        "cameras": {name: list(shape) for name, shape in shapes.items()},
    }  # fmt: skip
    text = json.dumps(description, indent=2).encode()
    disk.write_atomically(out / disk.DESCRIPTION, lambda handle: handle.write(text))
    return report


def refuse_full(out: Path) -> None:
    """Refuse a folder that holds something already.

    Raises:
        BagError: it does.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BagError(f"'{out}' is not empty; name a new folder for the export")


def nothing_line(report: ExportReport, wish: Wish) -> str:
    """Return the line that says why no episode was taken."""
    reasons = "; ".join(dict.fromkeys(report.left_out.values())) or "there are no bags"
    hint = "" if wish.outcome == ANY else "; --outcome any takes every outcome"
    return f"nothing to export: {reasons}{hint}"
