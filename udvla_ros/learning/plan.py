"""What a child is made of: sizes, actions and codes from the parent where they fit, its own where they must be."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from udvla_ros.errors import ConfigError
from udvla_ros.model.checkpoint import ActionConvention, Bundle, BundleConfig
from udvla_ros.rollouts.actions import default_space
from udvla_ros.rollouts.bags.episode import RecordedEpisode, robot_of
from udvla_ros.rollouts.bags.export import ExportReport, Wish, export_episodes
from udvla_ros.rollouts.bags.reader import Bag
from udvla_ros.rollouts.bags.topic import BagError
from udvla_ros.rollouts.episodes import read_shard, shard_paths
from udvla_ros.tokens.layout import View
from udvla_ros.training.tokenize import convention_of

HELD_OUT = 10  # every so many-th episode is kept for the judgement
CLIPPED = 0.02  # share of the values beyond the parent's ranges from which the codes are fitted again
SHAPE = 0.02  # relative difference of two aspect ratios that are taken for the same
MOST_CODES = 1.5  # a camera of another shape may take so many times the codes of the parent's


@dataclass(frozen=True)
class LearnOptions:
    """What is asked for.

    Attributes:
        minutes: for the training of the policy; or ``steps``.
        vision_minutes: for the eyes, trained on from the parent's; 0 keeps them.
        corrections: how much more often a corrected step is drawn.
        outcome, only_corrections, before, hz, chunk, space, cameras, robot: as ``udvla bag export`` takes them.
        rehearse: data sets of what the parent knew, mixed in.
        scenes: of the closed loop in simulation, for parent and child alike; 0 leaves it out.
        condition: of these scenes (:data:`udvla_ros.sim.sampler.CONDITIONS`).
        config: training file whose ``training`` section is used.
    """

    minutes: float | None = 30.0
    steps: int | None = None
    vision_minutes: float = 0.0
    corrections: float = 3.0
    outcome: str = "success"
    only_corrections: bool = False
    before: float = 2.0
    hz: float | None = None
    chunk: int | None = None
    space: str = ""
    cameras: tuple[str, ...] = ()
    robot: str = ""
    rehearse: tuple[str, ...] = ()
    scenes: int = 0
    condition: str = "plain"
    config: str = "config/training/nano.yaml"
    name: str = ""
    seed: int = 0
    settings: tuple[str, ...] = field(default_factory=tuple)


def fitting(recorded: tuple[int, int], view: View) -> tuple[int, int]:
    """Return the (height, width) at which a camera's pictures are learnt: the view's, or one of the camera's own shape.

    A picture of another shape is not squeezed: it gets the size nearest to the view's area that keeps its shape in
    whole patches.
    """
    (tall, wide), patch = recorded, view.height // view.rows
    if abs(tall * view.width - wide * view.height) <= SHAPE * wide * view.height:
        return view.height, view.width
    best = None
    for rows in range(1, view.rows * 4 + 1):
        cols = max(1, round(rows * wide / tall))
        if rows * cols > MOST_CODES * view.rows * view.cols:
            break
        off = abs(np.log(cols * tall / (rows * wide)))
        area = abs(np.log(rows * cols / (view.rows * view.cols)))
        if best is None or off + 0.2 * area < best[0]:
            best = (off + 0.2 * area, rows, cols)
    if best is None:
        raise ConfigError(f"a camera of {wide}x{tall} has no size near {view.width}x{view.height}; give --size")
    return best[1] * patch, best[2] * patch


def sizes_for(pictures: Mapping[str, tuple[int, int]], views: Sequence[View]) -> dict[str, tuple[int, int]]:
    """Return the size of each recorded camera: by the parent's view of its name, else by the one at its place."""
    by_name = {view.name: view for view in views}
    return {
        name: fitting(size, by_name.get(name, views[min(place, len(views) - 1)]))
        for place, (name, size) in enumerate(pictures.items())
    }


def wish_of(folders: Sequence[Path], parent: BundleConfig, options: LearnOptions) -> Wish:
    """Return what to export: in the parent's rate, chunk, action space and sizes where the robot allows.

    Raises:
        BagError: no bag can be opened.
    """
    reasons = []
    for folder in folders:
        try:
            with Bag(folder) as bag:
                robot = robot_of(bag, options.robot, options.cameras)
                episode = RecordedEpisode(bag, robot)
                seen = {name: next(episode.frames(name))[1].shape[:2] for name in robot.cameras}
        except (BagError, StopIteration) as error:
            reasons.append(str(error) or f"'{folder}' has no pictures")
            continue
        action = parent.action
        fits = action.space != "tcp_delta" or len(robot.joints) >= 6
        space = options.space or (action.space if fits else default_space(robot))
        return Wish(
            outcome=options.outcome, hz=options.hz or action.control_hz, chunk=options.chunk or action.chunk,
            sizes=sizes_for(seen, parent.views), robot=options.robot, cameras=tuple(seen), space=space,
            only_corrections=options.only_corrections, before=options.before,
        )  # fmt: skip
    raise BagError(f"no bag can be learnt from: {'; '.join(dict.fromkeys(reasons)) or 'there are none'}")


def split(folders: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return the episodes to learn from and those kept for the judgement: every tenth, at least one of two."""
    every = min(HELD_OUT, len(folders))
    held = [folder for k, folder in enumerate(folders) if len(folders) > 1 and k % every == every - 1]
    return [folder for folder in folders if folder not in held], held


def prepare(folders: Sequence[Path], parent: BundleConfig, out: Path, options: LearnOptions) -> dict[str, ExportReport]:
    """Write ``data/`` and ``held_out/``, one bag in memory at a time; what is there already stays.

    Raises:
        BagError: nothing can be learnt from.
    """
    made = {}
    wish = wish_of(folders, parent, options)
    learn, held = split(folders)
    for name, part, how in (("data", learn, wish), ("held_out", held, replace(wish, only_corrections=False))):
        if part and not (out / name / "dataset.json").is_file():
            made[name] = export_episodes(part, out / name, how)
    write_plan(out, options)
    return made


def write_plan(out: Path, options: LearnOptions) -> None:
    """Write what was asked for beside the data, for whoever trains on it elsewhere."""
    (out / "plan.json").write_text(json.dumps(asdict(options), indent=1) + "\n", encoding="utf-8")


def apart(mine: ActionConvention, other: ActionConvention) -> list[str]:
    """Return in what two conventions differ, as far as both tell; joints have no say in steps of the TCP."""
    keys = [key.name for key in dataclasses.fields(ActionConvention)]
    told = mine.space != "tcp_delta" and mine.joints and other.joints
    return [key for key in keys if getattr(mine, key) != getattr(other, key) and (key != "joints" or told)]


def why_other_codes(parent: Bundle, data: Path) -> str:
    """Return why the parent's action codes do not do for the data; empty where they do."""
    action = convention_of(data)
    keys = apart(action, parent.config.action)
    if keys:
        values = (f"{key} {getattr(parent.config.action, key)} and {getattr(action, key)}" for key in keys)
        return f"the parent and the data differ in {', '.join(values)}"
    chunks = np.concatenate([e.intention[e.learnable] for path in shard_paths(data) for e in read_shard(path)])
    q01, q99 = parent.normalizer.q01, parent.normalizer.q99
    slack = 1e-6 + 0.02 * (q99 - q01)
    beyond = float(((chunks < q01 - slack) | (chunks > q99 + slack)).any(axis=(1, 2)).mean())
    return f"{beyond:.0%} of the chunks lie beyond the parent's ranges" if beyond > CLIPPED * chunks.shape[1] else ""
