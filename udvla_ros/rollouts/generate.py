"""Generate demonstrations in parallel, resumable, the same whatever the number of workers.

Episode ``i`` is drawn from seed ``base + i`` and its attempts from that seed's sub-seeds, so neither the
number of workers nor an interruption changes what is written. A data set grows by further shards. Seeds from
1,000,000 on belong to evaluation.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from udvla_ros.errors import UdvlaError
from udvla_ros.rollouts import episodes as disk
from udvla_ros.rollouts.noise import Noise
from udvla_ros.rollouts.record import CHUNK, Driver, correct, demonstrate
from udvla_ros.sim.sampler import SceneSampler
from udvla_ros.sim.tasks import KINDS, tasks_of
from udvla_ros.workers import worker_pool

SHARD = 100  # episodes
EVALUATION_SEEDS = 1_000_000  # the first seed that data never uses
ATTEMPTS = 50  # failures in a row after which something is wrong
MakeDriver = Callable[[], Driver]
Make = Callable[[int], list[disk.Episode]]  # index of an episode -> its stretches


class Source(Protocol):
    """What a data set is made from: a dataclass; two equal ones give the same episodes."""

    @property
    def episodes(self) -> int:
        """How many successful ones."""

    @property
    def seed(self) -> int:
        """Of the first episode; the others follow."""

    def check(self) -> None:
        """Raise GenerateError where wrong data would come of it."""

    def maker(self, make_driver: MakeDriver | None) -> Make:
        """Return what makes episodes, with worlds of its own, in a worker process."""

    def facts(self) -> dict[str, Any]:
        """Return what the data's description says beyond counts."""


class GenerateError(UdvlaError):
    """What was asked for cannot be generated."""


@dataclass(frozen=True)
class Config:
    """What a data set is made from; two equal ones give the same episodes.

    Attributes:
        episodes: how many successful ones.
        seed: of the first episode; the others follow.
        tasks: kinds, taken in turn.
        noise: factor on the default :class:`Noise`.
        policy: bundle that acts while the expert says what it would have done; empty: the expert acts.
        tray, distractors, light, camera: how much the scenes vary beyond their arrangement: probabilities of a tray
            that no sentence names and of each distractor, half range of the light's factor, and the cameras'
            jitter as a factor on 6 mm and 0.01 rad.
    """

    episodes: int
    seed: int = 0
    tasks: tuple[str, ...] = KINDS
    noise: float = 1.0
    tray: float = 0.0
    distractors: float = 0.0
    light: float = 0.0
    camera: float = 0.0
    policy: str = ""

    def sampler(self) -> SceneSampler:
        """Return what draws the scenes."""
        return SceneSampler(
            tray=self.tray,
            distractors=self.distractors,
            light=self.light,
            camera_metres=0.006 * self.camera,
            camera_turn=0.01 * self.camera,
        )

    def maker(self, make_driver: MakeDriver | None) -> Make:
        """Return what makes episodes on the tabletop."""
        from udvla_ros.sim.world import TabletopWorld

        driver = make_driver() if make_driver else None
        world = TabletopWorld(render=True)
        return lambda index: make_episode(world, self, index, driver)

    def facts(self) -> dict[str, Any]:
        """Return the noise, the conventions and the cameras."""
        from udvla_ros.sim.control import CONTROL_DT
        from udvla_ros.sim.scene import JOINTS, default_cameras

        return {
            "noise": asdict(Noise.scaled(self.noise)),
            "control_hz": round(1.0 / CONTROL_DT),
            "action": {
                "space": "tcp_delta", "frame": "base", "chunk": CHUNK, "dimensions": 7, "gripper": 6,
                "control_hz": 1.0 / CONTROL_DT, "joints": list(JOINTS),
            },
            "action_space": "tcp_delta, base frame: dxyz (m), rotation vector (rad), gripper +1 close -1 open",
            "intention_shape": [CHUNK, 7],
            "cameras": {name: [camera.height, camera.width] for name, camera in default_cameras().items()},
        }

    def check(self) -> None:
        """Refuse what would be wrong data.

        Raises:
            GenerateError: no episodes, an unknown task, a negative noise, or seeds kept for evaluation.
        """
        unknown = [kind for kind in self.tasks if kind not in KINDS]
        if unknown or not self.tasks:
            raise GenerateError(
                f"unknown tasks {unknown}; --tasks takes, separated by commas: {', '.join(KINDS)}"
            )
        if self.episodes < 1:
            raise GenerateError(f"--episodes {self.episodes} makes no data; ask for at least 1")
        if self.noise < 0:
            raise GenerateError(f"--noise {self.noise} is negative; 0 switches noise off, 1 is the default")
        for name in ("tray", "distractors", "light"):
            if not 0.0 <= getattr(self, name) <= 0.9:
                raise GenerateError(f"--{name} {getattr(self, name)} must lie between 0 and 0.9")
        if not 0.0 <= self.camera <= 5.0:
            raise GenerateError(f"--camera {self.camera} must lie between 0 and 5")
        if self.seed < 0 or self.seed + self.episodes > EVALUATION_SEEDS:
            raise GenerateError(
                f"seeds {self.seed} to {self.seed + self.episodes - 1} leave 0 to {EVALUATION_SEEDS - 1}: "
                "higher ones are kept for evaluation; choose a lower --seed"
            )


def make_episode(world: Any, config: Config, index: int, driver: Driver | None = None) -> list[disk.Episode]:
    """Return the stretches of episode ``index``, the first success; their ``attempt`` counts the failures before.

    Where a ``driver`` acts, its failures are what is wanted, and are kept.

    Raises:
        GenerateError: none of many attempts succeeds.
    """
    seed = config.seed + index
    kind = config.tasks[index % len(config.tasks)]
    choices, sampler = tasks_of(kind), config.sampler()
    for attempt in range(ATTEMPTS):
        rng = np.random.default_rng([seed, attempt])
        task = choices[int(rng.integers(len(choices)))]
        scene = sampler.sample(rng, task)
        if driver is not None:
            made = correct(world, scene, task, rng, driver, seed, attempt)
        else:
            made = demonstrate(world, scene, task, rng, Noise.scaled(config.noise), seed, attempt)
        if made:
            return made
    raise GenerateError(f"the expert failed {ATTEMPTS} attempts of '{kind}' from seed {seed}; lower --noise")


_counter: Any = None  # of a worker process: episodes made so far by all of them
_make: Make | None = None


def _start_worker(counter: Any) -> None:
    global _counter
    # llvmpipe's own threads only get in each other's way at this image size.
    os.environ["OMP_NUM_THREADS"], os.environ["LP_NUM_THREADS"] = "1", "0"
    _counter = counter


def _make_shard(config: Source, indices: range, path: Path, make_driver: MakeDriver | None) -> None:
    global _make
    if _make is None:  # here and not at the start, so that a RenderError reaches the user
        _make = config.maker(make_driver)
    made: list[disk.Episode] = []
    for index in indices:
        made += _make(index)
        with _counter.get_lock():
            _counter.value += 1
    try:
        disk.write_shard(path, made)
    except OSError as error:
        raise GenerateError(f"{path} cannot be written ({error.strerror}); make room, run it again to go on") from error


def generate(
    folder: Path,
    config: Source,
    workers: int = 1,
    progress: bool = True,
    shard: int = SHARD,
    make_driver: MakeDriver | None = None,
) -> dict[str, Any]:
    """Write a data set into ``folder`` and return its description.

    Shards that are there already are kept, so an interrupted run goes on where it stopped, and a longer data set
    where a shorter one ended.

    Args:
        make_driver: makes, in a worker process, what acts where the config names a policy.

    Raises:
        GenerateError: see :meth:`Config.check`; or the folder holds data made from another config.
    """
    config.check()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    ends = _claim(folder, config, shard)
    paths = [folder / f"shard-{number:05d}.npz" for number in range(len(ends))]
    jobs = [
        (config, range(start, end), path, make_driver)
        for start, end, path in zip([0, *ends], ends, paths, strict=False)
        if not path.exists()
    ]
    started = time.monotonic()
    if jobs:
        _run(jobs, workers, progress)
    description = _describe(config, paths, time.monotonic() - started)
    text = json.dumps(description, indent=2) + "\n"
    disk.write_atomically(folder / disk.DESCRIPTION, lambda handle: handle.write(text.encode()))
    return description


def _claim(folder: Path, config: Source, shard: int) -> list[int]:
    """Return where each shard ends, remembered before the first one: a resumed run cannot mix two data sets."""
    path, mine = folder / "config.json", json.loads(json.dumps(asdict(cast(Any, config))))
    ends: list[int] = []
    if path.is_file():
        theirs = json.loads(path.read_text())
        ends = theirs.pop("ends", [])
        if {**theirs, "episodes": 0} != {**mine, "episodes": 0} or (ends or [0])[-1] > config.episodes:
            raise GenerateError(f"'{folder}' holds data of another {path.name}; choose another --out")
    elif any(folder.glob("shard-*.npz")):
        raise GenerateError(f"'{folder}' holds shards without {path.name}; choose another --out")
    while (ends or [0])[-1] < config.episodes:
        ends.append(min((ends or [0])[-1] + shard, config.episodes))
    text = json.dumps({**mine, "ends": ends}, indent=2) + "\n"
    disk.write_atomically(path, lambda handle: handle.write(text.encode()))
    return ends


def _run(jobs: list[tuple[Source, range, Path, MakeDriver | None]], workers: int, progress: bool) -> None:
    from tqdm import tqdm

    counter = multiprocessing.get_context("spawn").Value("q", 0)
    patience = 0.5 if sys.stderr.isatty() else 30.0  # a log wants a line now and then
    bar = tqdm(total=sum(len(indices) for _, indices, *_ in jobs), unit="episode", disable=not progress)
    bar.mininterval = patience
    pool = worker_pool(min(workers, len(jobs)), _start_worker, counter)
    try:
        pending = {pool.submit(_make_shard, *job) for job in jobs}
        while pending:
            done, pending = wait(pending, timeout=0.5, return_when=FIRST_EXCEPTION)
            bar.update(counter.value - bar.n)
            for future in done:
                future.result()  # raises what the worker raised
    except BrokenProcessPool as error:
        raise GenerateError("a worker died (out of memory?); run it again with fewer --workers") from error
    finally:
        pool.shutdown(cancel_futures=True)
        bar.close()


def _describe(config: Source, paths: list[Path], seconds: float) -> dict[str, Any]:
    """Read the small arrays of every shard and sum up."""
    made: Counter = Counter()
    attempts: Counter = Counter()
    colours: Counter = Counter()
    frames = labels = stretches = 0
    for path in paths:
        with np.load(path, allow_pickle=False) as stored:
            lengths = stored["actions_per_episode"]
            _, first = np.unique(stored["seed"], return_index=True)  # one of each episode's stretches
            made.update(stored["task"][first].tolist())
            colours.update(stored["colour"][first].tolist())
            for kind, attempt in zip(stored["task"][first].tolist(), stored["attempt"][first].tolist(), strict=True):
                attempts[kind] += attempt + 1
            labels += int(stored["labelled"].sum())
        stretches += len(lengths)
        frames += int((lengths + 1).sum())
    return {
        "format": disk.FORMAT,
        "version": disk.VERSION,
        "config": asdict(cast(Any, config)),
        "episodes": sum(made.values()),
        "episodes_per_task": dict(made),
        "episodes_per_colour": dict(colours),
        "shards": len(paths),
        "stretches": stretches,
        "frames": frames,
        "labels": labels,
        "seeds": [config.seed, config.seed + config.episodes - 1],
        "expert_success": {kind: round(made[kind] / attempts[kind], 4) for kind in made},
        **config.facts(),
        "seconds": round(seconds, 1),
    }
