"""Parent and child in the closed loop of the simulation, on the same scenes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from udvla_ros.errors import ConfigError
from udvla_ros.evaluation.cases import Trial
from udvla_ros.evaluation.closed_loop import LoopOptions, Outcome
from udvla_ros.evaluation.paired import pair
from udvla_ros.evaluation.suite import Session, SuiteOptions, make_cases
from udvla_ros.learning.plan import LearnOptions
from udvla_ros.sim.tasks import KINDS


def judge_closed_loop(parent: Path, child: Path, told: Mapping[str, Any], options: LearnOptions) -> dict[str, Any]:
    """Return success of both over the scenes of each kind of task in the data, and the paired comparison.

    Raises:
        ConfigError: the simulation has none of the data's tasks.
    """
    kinds = [kind for kind in told["episodes_per_task"] if kind in KINDS]
    if not kinds:
        raise ConfigError(f"the simulation has no task of {', '.join(told['episodes_per_task'])}; leave out --scenes")
    trial = Trial(condition=options.condition)
    rows: dict[str, list[dict[str, Any]]] = {}
    for who, bundle in (("parent", parent), ("child", child)):
        with Session(SuiteOptions(str(bundle), loop=LoopOptions(latency=1))) as session:
            rows[who] = [
                _row(outcome)
                for kind in kinds
                for outcome in session.run(kind, make_cases(kind, options.scenes, 0, trial), _nobody)
            ]
    rates = {who: sum(row["success"] for row in found) / len(found) for who, found in rows.items()}
    paired = pair(rows["parent"], rows["child"]).as_dict()
    return {**rates, "tasks": kinds, "condition": options.condition, "paired": paired}


def _row(outcome: Outcome) -> dict[str, Any]:
    case = outcome.case
    return {"task": str(case.task), "seed": case.seed, "instruction": case.instruction, "success": outcome.success}


def _nobody(outcome: Outcome) -> None:
    """Nobody waits for a single episode."""
