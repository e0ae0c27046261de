"""The episodes of a table: every row over the very same scenes, task by task, as far as the store lacks them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any

from udvla_ros.errors import ConfigError, UdvlaError
from udvla_ros.evaluation import suite
from udvla_ros.evaluation.cases import Case
from udvla_ros.evaluation.closed_loop import LoopOptions, Outcome
from udvla_ros.evaluation.store import Store, key
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


def name_of(task: str, row: Row, identity: Identity, protocol: Protocol) -> str:
    """Return the key of a task's episodes: rows of the same weights, options and scenes share them."""
    return key(
        stage="episodes",
        task=task,
        hash=identity.hash,
        decoding=asdict(identity.options),
        **asdict(row.trial),
        episodes=protocol.episodes,
        seed=protocol.seed,
        execute=protocol.execute,
        latency=protocol.latency,
    )


def measure(
    table: TableSpec,
    tasks: Sequence[str],
    identities: Mapping[str, Mapping[int, Identity]],
    protocol: Protocol,
    store: Store,
    only: Sequence[str] | None = None,
    bar: Any = None,
    player: Callable[[Row, int, Identity, Protocol, ExitStack], Player] | None = None,
) -> Measured:
    """Return all episodes of the rows that are complete: those in ``only`` are run where they are not in the store.

    ``bar`` is a tqdm bar or nothing; ``player`` makes what runs the cases of a row and training seed.
    """
    measured: Measured = {}
    for row in table.rows:
        for seed, identity in identities[row.name].items():
            names = {task: name_of(task, row, identity, protocol) for task in tasks}
            if only is None or row.name in only:
                _fill(store, names, row, seed, identity, protocol, bar, player or _player)
            known = {task: found["episodes"] for task, name in names.items() if (found := store.get(name))}
            if len(known) == len(tasks):
                measured.setdefault(row.name, {})[seed] = known
    return measured


def _fill(
    store: Store,
    names: Mapping[str, str],
    row: Row,
    seed: int,
    identity: Identity,
    protocol: Protocol,
    bar: Any,
    player: Callable[[Row, int, Identity, Protocol, ExitStack], Player],
) -> None:
    waiting = [task for task, name in names.items() if store.get(name) is None]
    if bar is not None:
        bar.update(protocol.episodes * (len(names) - len(waiting)))
    with ExitStack() as stack:
        play = player(row, seed, identity, protocol, stack) if waiting else None
        for task in waiting:
            if bar is not None:
                bar.set_description(f"{row.name}, seed {seed}, {task}")
            done = (lambda outcome: None) if bar is None else suite.counting(bar)
            trial = replace(row.trial, sentences=identity.sentences)
            cases = suite.make_cases(task, protocol.episodes, protocol.seed, trial)
            assert play is not None
            store.put(names[task], {"episodes": [suite.episode(task, one) for one in play(task, cases, done)]})


def _player(row: Row, seed: int, identity: Identity, protocol: Protocol, stack: ExitStack) -> Player:
    """Return what runs cases in closed loop, in this process or in several."""
    options = SuiteOptions(
        identity.folder,
        protocol.device,
        protocol.threads,
        dict(row.decoding),
        LoopOptions(protocol.execute, protocol.latency),
        min(protocol.batch, protocol.episodes),
        protocol.workers,
    )
    if protocol.workers > 1:
        return lambda kind, cases, done: suite.run_parallel(options, kind, cases, done)
    return stack.enter_context(suite.Session(options)).run
