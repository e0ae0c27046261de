"""Claims about a table's rows, answered from what was measured.

================================  =======================================================================
``hybrid > causal``               success over all tasks: ``yes`` or ``no`` where the exact paired test
                                  finds a difference at 5%, else ``undecided``
``student >= teacher - 3 points`` ``yes`` where the 95% interval of the paired difference lies above -3
                                  points, ``no`` where it lies below, else ``undecided``
``touch of plain >= 97%``         the measured rate (``all`` for all tasks)
``tokens/s of a >= 8 x b``        the ratio of the medians of the interleaved run: tokens of a suffix by the denoising
``chunks/s of a >= 4 x b``        the same of whole chunks, images in to actions out
``steps of student <= 4``         denoising steps that the row is decoded with, images and actions
================================  =======================================================================

The first two may end in ``on TASK``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from udvla_ros.errors import ConfigError
from udvla_ros.evaluation.paired import Paired
from udvla_ros.evaluation.tables.table import ALL, difference
from udvla_ros.evaluation.tables.table_run import Measured
from udvla_ros.evaluation.tables.table_spec import NAME, TableSpec
from udvla_ros.sim.tasks import KINDS

LEVEL = 0.05
YES, NO, UNDECIDED, UNMEASURED = "yes", "no", "undecided", "not measured"
_N, _X = NAME.pattern, r"\d+(?:\.\d+)?"
_ON = rf"(?: on (?P<task>{'|'.join(KINDS)}))?"
_PARTS = "|".join((ALL, *KINDS))


class _Told:
    """What claims look at."""

    def __init__(self, table: TableSpec, measured: Measured, result: Mapping[str, Any]) -> None:
        self.table, self.measured = table, measured
        self.rows = {row["name"]: row for row in result["rows"]}

    def paired(self, words: Mapping[str, str]) -> Paired | None:
        """Return the first less the second."""
        return difference(self.table, self.measured, words["b"], words["a"], words["task"] or ALL)


Answer = tuple[str, dict[str, Any]]


def _more(told: _Told, words: Mapping[str, str]) -> Answer:
    found = told.paired(words)
    if found is None:
        return UNMEASURED, {}
    sure = found.p_value() < LEVEL
    return (YES if found.difference > 0 else NO) if sure else UNDECIDED, _numbers(told, words, found)


def _within(told: _Told, words: Mapping[str, str]) -> Answer:
    found = told.paired(words)
    if found is None:
        return UNMEASURED, {}
    low, high = (round(100 * bound, 2) for bound in found.interval())
    margin = -float(words["n"])
    return YES if low > margin else NO if high < margin else UNDECIDED, _numbers(told, words, found)


def _numbers(told: _Told, words: Mapping[str, str], found: Paired) -> dict[str, Any]:
    """Return the comparison, and its difference in each training seed."""
    a, b, task = words["a"], words["b"], words["task"] or ALL
    seeds = [seed for seed in told.measured[b] if seed in told.measured[a]]
    apart = {}
    for seed in seeds if len(seeds) > 1 else ():
        alone = {name: {seed: told.measured[name][seed]} for name in (a, b)}
        one = difference(told.table, alone, b, a, task)
        apart[str(seed)] = round(one.difference, 4) if one else None
    return {**found.as_dict(), **({"by_training_seed": apart} if apart else {})}


def _rate(told: _Told, words: Mapping[str, str]) -> Answer:
    part = told.rows.get(words["a"], {}).get("success", {}).get(words["part"])
    if part is None:
        return UNMEASURED, {}
    return YES if 100 * part["successes"] >= float(words["n"]) * part["episodes"] else NO, dict(part)


def _speed(told: _Told, words: Mapping[str, str]) -> Answer:
    first, second = (told.rows.get(words[name], {}).get("timing") for name in ("a", "b"))
    if not first or not second:
        return UNMEASURED, {}
    if words["what"] == "chunks":
        ratio = second["chunk_ms"]["p50"] / first["chunk_ms"]["p50"]
    else:
        ratio = first["tokens_per_second"] / second["tokens_per_second"]
    ratio = round(ratio, 2)
    return YES if ratio >= float(words["n"]) else NO, {"ratio": ratio}


def _steps(told: _Told, words: Mapping[str, str]) -> Answer:
    row = told.rows.get(words["a"])
    if row is None:
        return UNMEASURED, {}
    steps = max(row["decoding"]["steps"], row["decoding"]["action_steps"] or 0)
    return YES if steps <= float(words["n"]) else NO, {"steps": steps}


FORMS: tuple[tuple[re.Pattern[str], Callable[[_Told, Mapping[str, str]], Answer]], ...] = tuple(
    (re.compile(form), answer)
    for form, answer in (
        (rf"(?P<a>{_N}) > (?P<b>{_N}){_ON}", _more),
        (rf"(?P<a>{_N}) >= (?P<b>{_N}) - (?P<n>{_X}) points?{_ON}", _within),
        (rf"(?P<part>{_PARTS}) of (?P<a>{_N}) >= (?P<n>{_X})%", _rate),
        (rf"(?P<what>tokens|chunks)/s of (?P<a>{_N}) >= (?P<n>{_X}) x (?P<b>{_N})", _speed),
        (rf"steps of (?P<a>{_N}) <= (?P<n>{_X})", _steps),
    )
)


def check(table: TableSpec) -> None:
    """Raise ConfigError where a claim cannot be read or names a row that the table lacks."""
    for claim in table.expect:
        words = _read(claim, table.source)[1]
        for name in ("a", "b"):
            if name in words:
                table.row(words[name])


def answer(table: TableSpec, measured: Measured, result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return each claim with its answer and the numbers that it rests on."""
    told = _Told(table, measured, result)
    answers = []
    for claim in table.expect:
        form, words = _read(claim, table.source)
        verdict, numbers = form(told, words)
        answers.append({"claim": claim, "holds": verdict, **numbers})
    return answers


def _read(claim: str, source: str) -> tuple[Callable[[_Told, Mapping[str, str]], Answer], dict[str, str]]:
    for form, found in FORMS:
        match = form.fullmatch(claim)
        if match:
            return found, match.groupdict()
    raise ConfigError(
        f"{source}: the claim '{claim}' cannot be read; write it like 'a > b', 'a >= b - 3 points', "
        "'touch of a >= 97%', 'tokens/s of a >= 8 x b', 'chunks/s of a >= 4 x b' or 'steps of a <= 4'"
    )
