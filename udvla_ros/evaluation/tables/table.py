"""A table from its episodes: success with intervals, and each row against the reference on the same episodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from udvla_ros.errors import ConfigError
from udvla_ros.evaluation.intervals import rate_with_interval
from udvla_ros.evaluation.paired import Paired, pair
from udvla_ros.evaluation.tables.table_run import Episodes, Identity, Measured, Protocol
from udvla_ros.evaluation.tables.table_spec import Row, TableSpec

ALL = "all"


def paired(
    first: Mapping[int, Episodes], second: Mapping[int, Episodes], task: str = ALL, *, same_words: bool = True
) -> Paired | None:
    """Return two rows compared over the training seeds that both have; None where they share none.

    Args:
        first, second: training seed to task to episodes; a difference is the second's less the first's.
        task: which; all by default.
        same_words: only the same sentence under the same condition is the same episode. Without it the same task in
            the same scene is: the rows differ in sentence or condition on purpose.

    Raises:
        ConfigError: some episode has no partner.
    """
    seeds = [seed for seed in first if seed in second]
    if not seeds:
        return None
    sides = [[e for seed in seeds for e in _flat(side[seed], seed, task, same_words)] for side in (first, second)]
    counts = {len(side) for side in sides}
    found = pair(*sides)
    if counts != {found.count}:
        raise ConfigError(
            f"only {found.count} of {max(counts)} episodes have a partner: the two rows were not run on the same scenes"
        )
    return found


def _flat(tasks: Episodes, seed: int, wanted: str, same_words: bool) -> list[dict[str, Any]]:
    return [
        {
            "task": f"{task}, training seed {seed}",
            "seed": episode["seed"],
            "success": episode["success"],
            **({name: episode[name] for name in ("instruction", "condition")} if same_words else {}),
        }
        for task, episodes in tasks.items()
        if wanted in (ALL, task)
        for episode in episodes
    ]


def difference(table: TableSpec, measured: Measured, than: str, name: str, task: str = ALL) -> Paired | None:
    """Return row ``name`` less row ``than``; None where one has no episodes or no training seed is shared."""
    if than not in measured or name not in measured:
        return None
    same = table.row(than).trial == table.row(name).trial
    return paired(measured[than], measured[name], task, same_words=same)


def rates(episodes: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Return successes and their rate with its interval, by task and over all."""
    parts = {**episodes, ALL: [e for each in episodes.values() for e in each]}
    result = {}
    for task, each in parts.items():
        good = sum(bool(episode["success"]) for episode in each)
        result[task] = {"successes": good, "episodes": len(each), **rate_with_interval(good, len(each))}
    return result


def summarise(
    table: TableSpec,
    tasks: Sequence[str],
    identities: Mapping[str, Mapping[int, Identity]],
    measured: Measured,
    protocol: Protocol,
    timing: Mapping[str, Any] | None = None,
    left_out: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the table as its JSON file holds it, without claims and command."""
    rows = [
        _row(table, row, tasks, identities[row.name], measured, timing) for row in table.rows if row.name in measured
    ]
    notes = list(left_out)
    if table.reference not in measured:
        notes.append(f"no differences: the reference row '{table.reference}' was not measured")
    else:
        notes += [
            f"row '{row['name']}' is not compared: it has no training seed in common with '{table.reference}'"
            for row in rows
            if row["name"] != table.reference and row["against"] is None
        ]
    return {
        "table": table.name,
        "title": table.title,
        "source": table.source,
        "reference": table.reference,
        "sweep": table.sweep,
        "tasks": list(tasks),
        "protocol": asdict(protocol),
        "rows": rows,
        "timing": dict(timing["how"]) if timing else None,
        "notes": notes,
    }


def _row(
    table: TableSpec,
    row: Row,
    tasks: Sequence[str],
    identities: Mapping[int, Identity],
    measured: Measured,
    timing: Mapping[str, Any] | None,
) -> dict[str, Any]:
    runs = measured[row.name]
    pooled = {task: [e for run in runs.values() for e in run[task]] for task in tasks}
    return {
        "name": row.name,
        "label": row.label,
        "point": list(row.point) if row.point else None,
        **asdict(row.trial),
        "bundles": {
            str(seed): {"folder": one.folder, "name": one.name, "hash": one.hash, "made_by": row.command(seed)}
            for seed, one in identities.items()
            if seed in runs
        },
        "decoding": asdict(next(iter(identities.values())).options),
        "success": rates(pooled),
        "by_training_seed": {str(seed): rates(run) for seed, run in runs.items()},
        "against": None if row.name == table.reference else _against(table, row.name, tasks, measured),
        "failures": {
            task: dict(Counter(e["reason"] for e in each if not e["success"]).most_common())
            for task, each in pooled.items()
        },
        # scene by scene, from scene 1000000 + seed on: whoever doubts an interval can count again
        "won": {
            str(seed): {task: "".join("01"[bool(e["success"])] for e in each) for task, each in run.items()}
            for seed, run in runs.items()
        },
        "timing": timing["rows"].get(row.name) if timing else None,
    }


def _against(table: TableSpec, name: str, tasks: Sequence[str], measured: Measured) -> dict[str, Any] | None:
    reference = table.reference
    whole = difference(table, measured, reference, name)
    if whole is None:
        return None
    by_task = {task: difference(table, measured, reference, name, task) for task in tasks}
    seeds = [seed for seed in measured[reference] if seed in measured[name]]
    by_seed = {}
    for seed in seeds:
        alone = {row: {seed: measured[row][seed]} for row in (reference, name)}
        by_seed[str(seed)] = difference(table, alone, reference, name)
    return {
        **{task: told.as_dict() for task, told in by_task.items() if told},
        ALL: whole.as_dict(),
        "by_training_seed": {seed: told.as_dict() for seed, told in by_seed.items() if told},
    }
