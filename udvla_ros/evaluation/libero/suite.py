"""Many LIBERO episodes: in parallel, kept one by one, gone on with after a kill, summed up with intervals."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from udvla_ros.errors import ConfigError
from udvla_ros.evaluation import pictures
from udvla_ros.evaluation.intervals import rate_with_interval
from udvla_ros.evaluation.libero.episode import CONTROLS, UNSEEN, BundleActs, ExpertActs, Job, Result, run
from udvla_ros.sim.libero.expert import placing
from udvla_ros.sim.libero.install import LiberoError
from udvla_ros.sim.libero.suites import LiberoTask, chosen
from udvla_ros.sim.libero.thin import FACES
from udvla_ros.sim.libero.world import HZ, SETTLE, SIDE, LiberoWorld
from udvla_ros.workers import worker_pool

EXPERT = "expert"
ROOM = 100 << 20  # bytes that must be free on the disk
KEPT, CLAIM = "episodes.jsonl", "claim.json"


@dataclass(frozen=True)
class Options:
    """What is measured, and how.

    Attributes:
        suite, tasks: see :func:`udvla_ros.sim.libero.suites.chosen`.
        policy: a bundle, or ``expert``; ``identity``: its name and hash.
        states: published init states of each task, from the first one.
        control: of :data:`~udvla_ros.evaluation.libero.episode.CONTROLS`.
        execute: actions of a chunk that are played; 0: all.
        seed: of what the policy draws, and of what is fixed to the table.
        faces: of a mesh in the pictures; 0: as published.
        film: keep the pictures of each task's first episode.
        device, threads, decode, runtime: of the bundle.
    """

    suite: str
    tasks: tuple[int, ...]
    policy: str
    states: int = 50
    control: str = "none"
    execute: int = 0
    seed: int = 0
    faces: int = FACES
    film: bool = True
    device: str = "cpu"
    threads: int | None = None
    decode: Mapping[str, Any] = field(default_factory=dict)
    runtime: Mapping[str, Any] = field(default_factory=dict)

    def claim(self) -> dict[str, Any]:
        """Return what must be the same for a run to be gone on with."""
        left_out = ("device", "threads", "film", "states")
        return json.loads(json.dumps({k: v for k, v in asdict(self).items() if k not in left_out}))


def check(options: Options) -> tuple[LiberoTask, ...]:
    """Return the tasks.

    Raises:
        LiberoError: a suite, a task or a number of init states that does not exist; ConfigError: a control that says
            nothing of the policy.
    """
    if options.control not in CONTROLS:
        raise ConfigError(f"no control '{options.control}'; there are: {', '.join(CONTROLS)}")
    if options.policy == EXPERT and options.control != "none":
        raise ConfigError(f"--control {options.control} says nothing of the expert: it neither looks nor listens")
    tasks = chosen(options.suite, ",".join(map(str, options.tasks)))
    for task in tasks:
        count = len(task.init_states())
        if not 1 <= options.states <= count:
            raise LiberoError(f"{task.suite} task {task.index} has {count} init states, not {options.states}")
        if options.policy == EXPERT:
            placing(task)
    return tasks


def run_suite(
    options: Options, out: Path, workers: int = 1, done: Callable[[Result], None] = lambda result: None
) -> list[dict[str, Any]]:
    """Run what ``out`` does not hold yet and return every episode of the options, in order.

    Each episode is on disk before the next one begins; films go to ``out/films``.

    Raises:
        ConfigError: ``out`` holds episodes of another run, or the disk is full.
    """
    jobs = [
        Job(options.suite, task.index, state, options.control, options.film and state == 0)
        for task in check(options) for state in range(options.states)
    ]  # fmt: skip
    kept = _open(options, out)
    waiting = [job for job in jobs if job.key not in kept]
    if waiting:
        _run(waiting, min(workers, len(waiting)), options, out, kept, done)
    return [kept[job.key] for job in jobs if job.key in kept]


def _open(options: Options, out: Path) -> dict[tuple, dict[str, Any]]:
    """Return the episodes that ``out`` holds; a line that a kill cut off is dropped."""
    out.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(out).free < ROOM:
        raise ConfigError(f"the disk of {out} has less than {ROOM >> 20} MB free; make room, run it again")
    claim, mine = out / CLAIM, options.claim()
    if claim.is_file():
        theirs = json.loads(claim.read_text())
        if theirs != mine:
            differ = sorted(key for key in mine if theirs.get(key) != mine[key])
            raise ConfigError(f"{out} holds a run of another {', '.join(differ)}; choose another --out")
    else:
        claim.write_text(json.dumps(mine, indent=1) + "\n")
    kept: dict[tuple, dict[str, Any]] = {}
    path = out / KEPT
    if path.is_file():
        whole = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
        path.write_text("".join(whole))
        for line in whole:
            row = json.loads(line)
            kept[row["suite"], row["task"], row["state"], row["control"]] = row
    return kept


def _run(
    jobs: Sequence[Job], workers: int, options: Options, out: Path, kept: dict[tuple, dict[str, Any]],
    done: Callable[[Result], None],
) -> None:  # fmt: skip
    options = replace(options, threads=options.threads or max(1, (os.cpu_count() or 1) // workers))
    pool = worker_pool(workers, _start_worker)
    try:
        with (out / KEPT).open("a") as file:
            for future in as_completed([pool.submit(_work, options, job, out) for job in jobs]):
                result = future.result()
                file.write(json.dumps(asdict(result)) + "\n")
                file.flush()
                os.fsync(file.fileno())
                kept[result.key] = asdict(result)
                done(result)
    except OSError as error:
        raise ConfigError(
            f"{out} cannot be written ({error.strerror or error}); {len(kept)} episodes are kept: make room, run again"
        ) from error
    except BrokenProcessPool as error:
        raise ConfigError(
            f"a worker died (out of memory?); {len(kept)} episodes are kept: run it again with fewer --workers"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _film(frames: Sequence[tuple[Mapping, Mapping]], result: Result, out: Path, hz: float) -> None:
    """Write what was shown at each look, and what was foreseen."""
    word = "success" if result.success else "failure"
    path = out / "films" / f"{result.suite}-{result.task}-{result.control}-{word}.mp4"
    cameras, sizes = list(frames[0][0]), pictures.sizes_of(frames[0][0])
    text = f"{result.said}   {'succeeded' if result.success else 'failed'}"

    def drawn() -> Iterable[Any]:
        foreseen: Mapping[str, Any] = {}
        for seen, expected in frames:
            foreseen = expected or foreseen
            yield pictures.video_frame(seen, foreseen, text, cameras, sizes, 1)

    pictures.write_film(path, drawn(), hz)


_world: LiberoWorld | None = None
_policy: Any = None


def _start_worker() -> None:
    # llvmpipe's own threads only get in each other's way at this image size.
    os.environ["OMP_NUM_THREADS"], os.environ["LP_NUM_THREADS"] = "1", "0"


def _work(options: Options, job: Job, out: Path) -> Result:
    global _world, _policy
    if _policy is None:
        _policy = load(options)
    if _world is None or (_world.task.suite, _world.task.index) != (job.suite, job.task):
        if _world is not None:
            _world.close()
        _world = LiberoWorld(chosen(job.suite, str(job.task))[0], faces=options.faces)
    frames: list[tuple[Mapping, Mapping]] = []
    result = run(_world, job, _policy, options.execute, options.seed, frames if job.film else None)
    if frames:
        _film(frames, result, out, HZ / (options.execute or 10 if _policy.looks else UNSEEN))
    return result


def load(options: Options) -> Any:
    """Return the policy.

    Raises:
        ConfigError: the bundle's actions are not LIBERO's.
    """
    if options.policy == EXPERT:
        return ExpertActs()
    from udvla_ros.model.runtime import RuntimeOptions
    from udvla_ros.policy import Policy
    from udvla_ros.sim.libero.world import SCALE

    policy = Policy.load(options.policy, options.device, options.threads, RuntimeOptions(**options.runtime))
    action = policy.config.action
    if action.space != "tcp_delta" or action.scale != SCALE or action.control_hz != HZ:
        raise ConfigError(
            f"{policy.config.name} acts in {action.space} of scale {list(action.scale)} at {action.control_hz:g} Hz, "
            f"LIBERO in tcp_delta of scale {list(SCALE)} at {HZ} Hz; give a bundle that was trained on LIBERO"
        )
    return BundleActs(policy, policy.check(policy.options(**options.decode)))


def summarise(options: Options, rows: Sequence[Mapping[str, Any]], bundle: Mapping[str, str]) -> dict[str, Any]:
    """Return the report: successes per task and over all, with Wilson's intervals, and all that made the number."""
    listed = {task.index: task for task in chosen(options.suite, ",".join(map(str, options.tasks)))}
    per_task = {}
    for index, task in listed.items():
        mine = [row for row in rows if row["task"] == index]
        per_task[str(index)] = {"sentence": task.sentence, **_section(mine)}
    return {
        "suite": options.suite, "policy": dict(bundle), "control": options.control,
        "all": _section(rows), "tasks": per_task,
        "renderer": {
            "side": SIDE, "shadows": False, "reflections": False, "turned": True,
            "faces_per_mesh": options.faces or "as published", "multisampling": 0 if options.faces else "as published",
            "crop": bundle.get("crops", "none"),
        },
        "init_states": f"published, 0 to {options.states - 1} of each task", "settle_steps": SETTLE,
        "limit_steps": next(iter(listed.values())).limit, "control_hz": HZ, "seed": options.seed,
        "execute": options.execute or "all", "decoding": dict(options.decode), "runtime": dict(options.runtime),
        "steps_per_second": round(sum(r["steps"] for r in rows) / max(1e-9, sum(r["seconds"] for r in rows)), 1),
        "episodes": list(rows),
    }  # fmt: skip


def _section(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    good = [row for row in rows if row["success"]]
    said = [bool(row["as_said"]) for row in rows if row["control"] == "swapped-words"]
    return {
        "episodes": len(rows), "successes": len(good), **rate_with_interval(len(good), len(rows)),
        "mean_steps": round(sum(row["steps"] for row in good) / len(good), 1) if good else None,
        "refused_chunks": sum(row["refused"] for row in rows),
        **({"did_what_was_said": {"successes": sum(said), **rate_with_interval(sum(said), len(said))}} if said else {}),
    }  # fmt: skip


def identity(options: Options) -> dict[str, Any]:
    """Return name, hash and crops of what is measured, read without torch.

    Raises:
        ConfigError: there is no such bundle.
    """
    if options.policy == EXPERT:
        return {"name": "scripted expert (sees the state of the world, no pictures)"}
    from udvla_ros.resources import find

    path = find(options.policy) / "config.json"
    try:
        text = path.read_bytes()
        config = json.loads(text)
        name, crops = config["name"], config.get("images", {}).get("crops", {})
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{path} is no bundle ({error}); name the folder of one, or expert") from error
    return {"name": name, "hash": hashlib.sha256(text).hexdigest(), "crops": crops or "none"}
