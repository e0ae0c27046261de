"""Bags to plain episodes: what ``udvla train`` learns from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from udvla_ros.errors import UdvlaError
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.rollouts import episodes as disk
from udvla_ros.rollouts.actions import default_space, described
from udvla_ros.rollouts.bags.check import check
from udvla_ros.rollouts.bags.episode import RecordedEpisode, robot_of
from udvla_ros.rollouts.bags.hands import BEFORE
from udvla_ros.rollouts.bags.identity import Identity, differ, prevailing
from udvla_ros.rollouts.bags.reader import Bag
from udvla_ros.rollouts.bags.steps import CHUNK, Steps, by_sentence, take_steps
from udvla_ros.rollouts.bags.topic import BagError
from udvla_ros.rollouts.episodes import By
from udvla_ros.rollouts.writing import DatasetWriter

UNKNOWN = -1
ANY = "any"


@dataclass(frozen=True)
class Wish:
    """What to export.

    Attributes:
        outcome: label an episode must have; ``any`` takes all.
        hz, chunk, sizes: see :func:`udvla_ros.rollouts.bags.steps.take_steps`.
        robot: robot file instead of the one recorded with.
        cameras: which; all of the robot file where there are none.
        space: of the actions; empty: that of the arm (:func:`udvla_ros.rollouts.actions.default_space`).
        only_corrections: learn only what a hand did after a takeover.
        before: s before a takeover that are not to be learnt.
    """

    outcome: str = "success"
    hz: float | None = None
    chunk: int = CHUNK
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    robot: str = ""
    cameras: tuple[str, ...] = ()
    space: str = ""
    only_corrections: bool = False
    before: float = BEFORE


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
    robot: RobotDescription
    action: dict[str, Any]  # what its actions mean


def taken_from(folders: Sequence[Path], wish: Wish, report: ExportReport) -> Iterator[Taken]:
    """Yield the episodes that fit the wish and each other; the reasons of the others go into the report.

    All are judged before the first is taken: by :func:`udvla_ros.rollouts.bags.check.check`, and by whose they are.

    Raises:
        BagError: no robot prevails.
    """
    alike, kept = _fit(folders, wish, report)
    for folder in tqdm(kept, desc="export", unit="episode", disable=len(kept) < 2):
        try:
            found = list(_taken(folder, wish, alike))
        except UdvlaError as error:
            report.leave_out(folder, str(error))
            continue
        except Exception as error:  # one odd bag must not end the export of the others
            report.leave_out(folder, f"{type(error).__name__}: {' '.join(str(error).split())}")
            continue
        report.taken.append(str(folder))
        for one in found:
            report.steps += int((one.steps.by != By.NOBODY).sum())
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
        found = check(folder, wish.robot, wish.cameras)
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


def _taken(folder: Path, wish: Wish, alike: _Alike) -> Iterator[Taken]:
    """Yield one episode, or one for each sentence where another was given on the way."""
    with Bag(folder) as bag:
        robot = robot_of(bag, wish.robot, wish.cameras)
        episode = RecordedEpisode(bag, robot)
        space = wish.space or default_space(robot)
        steps = take_steps(episode, wish.hz, wish.chunk, wish.sizes, space, wish.before)
        if wish.only_corrections:
            steps.by[steps.by != By.CORRECTION] = By.NOBODY
        if (steps.by == By.NOBODY).all():
            raise BagError(f"'{folder}' has no {'correction' if wish.only_corrections else 'step'} to learn from")
        alike.agree(folder, steps)
        action = described(robot, space, wish.chunk, round(1.0 / steps.dt, 6))
        for part, sentence in by_sentence(steps, episode.sentences()):
            yield Taken(
                folder, part, sentence, bag.labels.get("outcome") or "unknown", dict(bag.labels), episode.simulated,
                robot, action,
            )  # fmt: skip


def to_episode(taken: Taken) -> disk.Episode:
    """Return a bag's steps in the format of demonstrations.

    What a real arm does not know is not made up: the cubes' poses are NaN, the seed is -1 outside simulation,
    ``task`` and ``colour`` are empty where only the sentence is known. Nothing disturbed the commands, so
    ``executed`` is the first step of ``intention``.
    """
    steps, count = taken.steps, len(taken.steps)
    task, _, colour = str(taken.simulated.get("task", "")).partition("/")
    gripper, joints = taken.robot.gripper, len(taken.robot.joints)
    seed = taken.simulated.get("seed")

    def closed(positions: np.ndarray) -> np.ndarray:
        return np.full(count + 1, np.nan) if gripper is None else np.asarray(gripper.fraction(positions[:, joints]))

    as_float = {name: np.asarray(value, np.float32) for name, value in {
        "intention": steps.actions,
        "executed": steps.actions[:, 0],
        "joints": steps.measured[:, :joints],
        "q_command": steps.commanded[:, :joints],
        "gripper": closed(steps.measured),
        "gripper_command": closed(steps.commanded),
        "tcp_command": steps.tcp,
        "cubes": np.full((count + 1, 3, 7), np.nan),
    }.items()}  # fmt: skip
    return disk.Episode(
        images=steps.images, **as_float, instruction=taken.instruction, intervention=steps.by,
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
    writer = DatasetWriter(out)
    outcomes: Counter[str] = Counter()
    robots: Counter[str] = Counter()
    action: dict[str, Any] = {}
    for taken in taken_from(folders, wish, report):
        writer.add(to_episode(taken))
        action = taken.action
        robots[taken.robot.name] += 1
        outcomes[taken.outcome] += 1
    if not report.taken:
        raise BagError(nothing_line(report, wish))
    writer.finish({
        "source": "bags", "command": command, "bags": report.taken, "outcomes": dict(outcomes), "robots": dict(robots),
        "action": action, "control_hz": action["control_hz"],
    })  # fmt: skip
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
