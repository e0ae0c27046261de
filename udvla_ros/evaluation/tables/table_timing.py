"""What a chunk costs in each row of a table: one run, rows in turn, on the same real views.

Rows that have the very same weights and options are timed once. A row is timed with the bundle of its first training
seed: the others have the same shapes. Tokens per second are the decoded slots of a suffix by the median denoising.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from udvla_ros.evaluation.cases import task_cases
from udvla_ros.evaluation.store import key
from udvla_ros.evaluation.store import machine as here
from udvla_ros.evaluation.tables.table_run import Identity
from udvla_ros.evaluation.timer import Way, device_name, in_turn, slots_of, stages
from udvla_ros.policy import Observation, Policy

OBSERVATIONS = 8  # different ones, used in turn
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
    ways = {name: Way(loaded[folder], options) for (folder, options), name in first.items()}
    load = os.getloadavg()[0]
    for way in ways.values():
        for _ in range(2):  # the first one is cold, the second one finds its buffers
            way.policy.infer(seen[0], way.options)
            progress()
    taken = in_turn(ways, seen, chunks, progress=progress)
    timed = {name: _row(way, taken[name]) for name, way in ways.items()}
    some = next(iter(loaded.values()))
    return {
        "rows": {name: timed[first[one.folder, one.options]] for name, one in identities.items()},
        "how": {
            "chunks": chunks,
            "views": len(seen),
            "device": str(some.device),
            "machine": device_name(some.device),
            "threads": torch.get_num_threads(),
            "cores": os.cpu_count(),
            "load_at_start": round(load, 2),
            "torch": torch.__version__,
        },
    }


def ways_of(identities: Mapping[str, Identity]) -> int:
    """Return how many different ways of decoding there are to time."""
    return len({(one.folder, one.options) for one in identities.values()})


def _row(way: Way, chunks: Sequence[Any]) -> dict[str, Any]:
    times, slots, kind = stages(chunks), slots_of(way), way.policy.bundle.backbone.kind
    return {
        "chunk_ms": times["total"],
        "decode_ms": times["decode"],
        "tokens_per_second": round(1e3 * slots / times["denoise"]["p50"], 1),
        "slots": slots,
        "forwards": round(float(np.mean([chunk.statistics["forwards"] for chunk in chunks])), 1),
        "attention": kind.name,
        "cached": way.options.use_cache and kind.prefix_exact,
    }
