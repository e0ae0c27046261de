"""What a chunk costs in each row of a table: one run, rows in turn, on the same real views.

Rows that have the very same weights and options are timed once. A row is timed with the bundle of its first training
seed: the others have the same shapes. As in :mod:`udvla_ros.evaluation.bench.decode_bench`, tokens per second are the
decoded slots of a suffix by the median denoising, and the machine may slow down: every row notices alike.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from udvla_ros.evaluation.bench import decode_rows, machine
from udvla_ros.evaluation.bench.decode_bench import OBSERVATIONS, Contender
from udvla_ros.evaluation.cases import task_cases
from udvla_ros.evaluation.store import key
from udvla_ros.evaluation.store import machine as here
from udvla_ros.evaluation.tables.table_run import Identity
from udvla_ros.evaluation.timer import Way, in_turn
from udvla_ros.policy import Observation, Policy

AHEAD = 6  # control steps by which each view's episode is further on than the one before


def views(tasks: Sequence[str], count: int = OBSERVATIONS) -> list[Observation]:
    """Return what the cameras see at different moments of different tasks while the scripted expert does them."""
    from udvla_ros.evaluation.closed_loop import worlds
    from udvla_ros.evaluation.suite import ROBOT
    from udvla_ros.motion.action_space import TcpDeltaSpace
    from udvla_ros.motion.robot import RobotDescription
    from udvla_ros.sim.expert import Expert
    from udvla_ros.sim.sampler import sample_scene

    space = TcpDeltaSpace(RobotDescription.load(ROBOT))
    seen = []
    with worlds(1) as (world,):
        for index in range(count):
            case = task_cases(tasks[index % len(tasks)], count, 0)[index]
            world.reset(sample_scene(case.seed, case.task))
            for _ in range(index * AHEAD % (4 * AHEAD)):
                targets = space.targets(Expert(world, case.task).plan(1), world.q_command)
                world.follow(targets.q[0], float(targets.gripper[0]), 0.1)
            seen.append(Observation(dict(world.render()), case.instruction))
    return seen


def name_of(identities: Mapping[str, Identity], chunks: int, device: str, threads: int | None) -> str:
    """Return the key of a timing: with another one it is taken again."""
    rows = {name: [one.hash, asdict(one.options)] for name, one in identities.items()}
    return key(stage="timing", rows=rows, chunks=chunks, device=device, threads=threads, **here())


def measure(
    identities: Mapping[str, Identity],
    seen: Sequence[Observation],
    chunks: int,
    device: str = "cpu",
    threads: int | None = None,
    progress: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Time ``chunks`` chunks of each row, interleaved; ``progress`` is called ``chunks`` + 2 times per way of decoding.

    Returns:
        ``rows``: by name; times in ms, of single chunks, images in to actions out. ``how``: what they are of.
    """
    first: dict[tuple[str, Any], str] = {}  # a way of decoding, and the row that stands for it
    for name, one in identities.items():
        first.setdefault((one.folder, one.options), name)
    loaded = {folder: Policy.load(folder, device, threads) for folder in {folder for folder, _ in first}}
    policies = {name: loaded[folder] for (folder, _), name in first.items()}
    contenders = [Contender(name, options) for (_, options), name in first.items()]
    load = os.getloadavg()[0]
    for contender in contenders:
        for _ in range(2):  # the first one is cold, the second one finds its buffers
            policies[contender.name].infer(seen[0], contender.options)
            progress()
    taken = in_turn({c.name: Way(policies[c.name], c.options) for c in contenders}, seen, chunks, progress=progress)
    timed = {c.name: _row(c, taken[c.name], policies[c.name]) for c in contenders}
    some = next(iter(policies.values()))
    return {
        "rows": {name: timed[first[one.folder, one.options]] for name, one in identities.items()},
        "how": {
            "chunks": chunks, "views": len(seen), "device": str(some.device), "machine": machine.name(some.device),
            "threads": torch.get_num_threads(), "cores": os.cpu_count(), "load_at_start": round(load, 2),
            "torch": torch.__version__,
        },
    }  # fmt: skip


def ways(identities: Mapping[str, Identity]) -> int:
    """Return how many different ways of decoding there are to time."""
    return len({(one.folder, one.options) for one in identities.values()})


def _row(contender: Contender, chunks: Sequence[Any], policy: Policy) -> dict[str, Any]:
    row = decode_rows.row_of(contender.name, contender.options, chunks, 0.0, policy)
    forwards = float(np.mean([chunk.statistics["forwards"] for chunk in chunks]))
    return {
        "chunk_ms": row.timings_ms["total"], "decode_ms": row.timings_ms["decode"],
        "tokens_per_second": row.slots_per_second, "slots": row.slots, "forwards": round(forwards, 1),
        "attention": row.attention, "cached": row.cached,
    }  # fmt: skip
