"""The episodes of a table: every row over the very same scenes, kept on disk, so that a run that was ended goes on.

One file per row and training seed, ``OUT/episodes/ROW-SEED.json``, written whole after each task. It counts again only
for the same weights, options, scenes and loop.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from udvla_ros.errors import ConfigError, UdvlaError
from udvla_ros.evaluation import suite
from udvla_ros.evaluation.cases import Case
from udvla_ros.evaluation.closed_loop import LoopOptions, Outcome
from udvla_ros.evaluation.report import write_report
from udvla_ros.evaluation.suite import SuiteOptions
from udvla_ros.evaluation.tables.table_spec import Row, TableSpec

Episodes = dict[str, list[dict[str, Any]]]  # task to episodes
Measured = dict[str, dict[int, Episodes]]  # row to training seed to tasks
Player = Callable[[str, Sequence[Case], Callable[[Outcome], None]], Sequence[Outcome]]


@dataclass(frozen=True)
class Protocol:
    """How every row is run.

    Attributes:
        episodes: per task and training seed.
        seed: first scene, counted from 1000000.
        execute, latency: as :class:`udvla_ros.evaluation.closed_loop.LoopOptions` has them.
        batch, workers: worlds in one process, and processes.
        device, threads: of inference.
    """

    episodes: int = 100
    seed: int = 0
    execute: int = 4
    latency: int = 0
    batch: int = 8
    workers: int = 1
    device: str = "cpu"
    threads: int | None = None


@dataclass(frozen=True)
class Identity:
    """A row's bundle of one training seed: what it is, the options it is decoded with, and what it was told."""

    folder: str
    name: str
    hash: str
    options: Any
    sentences: frozenset[str] | None = None


def examine(table: TableSpec, device: str = "cpu") -> dict[str, dict[int, Identity]]:
    """Load every bundle once and check that its row's options fit it, before hours are spent on the others.

    Raises:
        UdvlaError: a bundle is broken, or cannot be decoded in that way; the message names the row.
    """
    from udvla_ros.policy import Policy

    found: dict[str, dict[int, Identity]] = {row.name: {} for row in table.rows}
    wanted: dict[str, list[tuple[Row, int]]] = {}
    for row in table.rows:
        for seed, folder in row.bundles.items():
            wanted.setdefault(folder, []).append((row, seed))
    for folder, users in wanted.items():
        row = users[0][0]
        try:
            policy = Policy.load(folder, device)
            for row, seed in users:
                options = policy.check(policy.options(**row.decoding))
                sentences = frozenset(policy.bundle.sentences) or None
                found[row.name][seed] = Identity(folder, policy.config.name, policy.hash, options, sentences)
        except TypeError as error:
            raise _told(table, row, f"{error}; see udvla_ros/decoding/interface.py for the options") from None
        except UdvlaError as error:
            raise _told(table, row, str(error)) from error
    return found


def _told(table: TableSpec, row: Row, reason: str) -> Exception:
    return ConfigError(f"{table.source}, row '{row.name}': {reason}")


class Store:
    """The file of one row and training seed.

    Args:
        path: of the file.
        key: what was measured; a file with another one is measured again.
    """

    def __init__(self, path: Path, key: Mapping[str, Any]) -> None:
        self.path = path
        self._key = json.loads(json.dumps(dict(key)))
        self.changed: list[str] = []
        self.tasks: Episodes = {}
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            self.changed = [name for name, value in self._key.items() if stored["key"].get(name) != value]
            if not self.changed:
                self.tasks = dict(stored["tasks"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return  # nothing there that could be gone on from

    def put(self, task: str, episodes: Sequence[Mapping[str, Any]]) -> None:
        """Keep the episodes of a task, on disk at once."""
        self.tasks[task] = [dict(episode) for episode in episodes]
        write_report(self.path, {"key": self._key, "tasks": self.tasks})


def store(folder: Path, row: Row, seed: int, identity: Identity, protocol: Protocol) -> Store:
    """Return what is known of a row and training seed."""
    key = {
        "hash": identity.hash, "decoding": asdict(identity.options), **asdict(row.trial),
        "episodes": protocol.episodes, "seed": protocol.seed, "execute": protocol.execute, "latency": protocol.latency,
    }  # fmt: skip
    return Store(folder / "episodes" / f"{row.name}-{seed}.json", key)


def measure(
    table: TableSpec,
    tasks: Sequence[str],
    identities: Mapping[str, Mapping[int, Identity]],
    protocol: Protocol,
    folder: Path,
    only: Sequence[str] | None = None,
    bar: Any = None,
    player: Callable[[Row, int, Identity, Protocol, ExitStack], Player] | None = None,
) -> Measured:
    """Return all episodes of the rows that are complete: those in ``only`` are run where they are not on disk.

    ``bar`` is a tqdm bar or nothing; ``player`` makes what runs the cases of a row and training seed.
    """
    measured: Measured = {}
    for row in table.rows:
        for seed, identity in identities[row.name].items():
            known = store(folder, row, seed, identity, protocol)
            if only is None or row.name in only:
                _fill(known, row, seed, identity, tasks, protocol, bar, player or _player)
            if all(task in known.tasks for task in tasks):
                measured.setdefault(row.name, {})[seed] = {task: known.tasks[task] for task in tasks}
    return measured


def _fill(
    known: Store, row: Row, seed: int, identity: Identity, tasks: Sequence[str], protocol: Protocol, bar: Any,
    player: Callable[[Row, int, Identity, Protocol, ExitStack], Player],
) -> None:  # fmt: skip
    if known.changed and bar is not None:
        bar.write(f"{known.path}: measured again, another {', '.join(known.changed)}")
    open_tasks = [task for task in tasks if task not in known.tasks]
    if bar is not None:
        bar.update(protocol.episodes * (len(tasks) - len(open_tasks)))
    if not open_tasks:
        return
    with ExitStack() as stack:
        play = player(row, seed, identity, protocol, stack)
        for task in open_tasks:
            good = 0

            def done(outcome: Outcome) -> None:
                nonlocal good
                good += outcome.success
                if bar is not None:
                    bar.set_postfix_str(f"{good} succeeded")
                    bar.update()

            if bar is not None:
                bar.set_description(f"{row.name}, seed {seed}, {task}")
            trial = replace(row.trial, sentences=identity.sentences)
            cases = suite.make_cases(task, protocol.episodes, protocol.seed, trial)
            known.put(task, [episode(task, outcome) for outcome in play(task, cases, done)])


def _player(row: Row, seed: int, identity: Identity, protocol: Protocol, stack: ExitStack) -> Player:
    """Return what runs cases in closed loop, in this process or in several."""
    options = SuiteOptions(
        identity.folder, protocol.device, protocol.threads, dict(row.decoding),
        LoopOptions(protocol.execute, protocol.latency), min(protocol.batch, protocol.episodes), protocol.workers,
    )  # fmt: skip
    if protocol.workers > 1:
        return lambda kind, cases, done: suite.run_parallel(options, kind, cases, done)
    return stack.enter_context(suite.Session(options)).run


def episode(task: str, outcome: Outcome) -> dict[str, Any]:
    """Return one episode as files hold it; :mod:`udvla_ros.evaluation.paired` finds its like by the first four."""
    case = outcome.case
    return {
        "task": task, "seed": case.seed, "instruction": case.instruction, "condition": case.condition,
        "success": bool(outcome.success), "reason": outcome.reason, "steps": outcome.steps,
        "refused_chunks": outcome.refusals,
    }  # fmt: skip
