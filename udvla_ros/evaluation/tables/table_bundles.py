"""Which rows of a table can be run: those that were asked for and whose bundles are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from udvla_ros.errors import ConfigError
from udvla_ros.evaluation.cases import trained_kinds
from udvla_ros.evaluation.tables.table_spec import TableSpec
from udvla_ros.resources import find
from udvla_ros.sim.tasks import KINDS


@dataclass(frozen=True)
class Missing:
    """A bundle that is not there."""

    row: str
    seed: int
    folder: str
    command: str

    def text(self) -> str:
        """Return it in words, with what makes it."""
        made = f"; make it with: {self.command}" if self.command else ""
        return f"row '{self.row}', training seed {self.seed}: there is no bundle {self.folder}{made}"


def chosen(table: TableSpec, only: str | None) -> list[str]:
    """Return the names of the rows that ``--only`` (names with commas) asks for; all without it.

    A row of a sweep may be named without its value. Raises ConfigError where there is no such row.
    """
    if not only:
        return [row.name for row in table.rows]
    wanted = [word.strip() for word in only.split(",")]
    bases = {row.point[0] for row in table.rows if row.point}
    for word in wanted:
        if word not in bases:
            table.row(word)
    return [row.name for row in table.rows if row.name in wanted or (row.point and row.point[0] in wanted)]


def present(table: TableSpec) -> tuple[TableSpec, list[Missing]]:
    """Return the table of the bundles that are there, and what is not."""
    rows, missing = [], []
    for row in table.rows:
        there = {}
        for seed, folder in row.bundles.items():
            try:
                there[seed] = str(find(Path(folder) / "config.json").parent)
            except ConfigError:
                missing.append(Missing(row.name, seed, folder, row.command(seed)))
        if there:
            rows.append(replace(row, bundles={seed: row.bundles[seed] for seed in there}))
    return replace(table, rows=tuple(rows)), missing


def demand(missing: Sequence[Missing], source: str) -> None:
    """Raise ConfigError that names the first missing bundle and what makes it, where one is missing."""
    if missing:
        more = len({(each.row, each.seed) for each in missing}) - 1
        others = f"{more} more missing; --skip-missing leaves them out" if more else "--skip-missing leaves it out"
        raise ConfigError(f"{source}, {missing[0].text()} ({others})")


def common_tasks(table: TableSpec) -> tuple[str, ...]:
    """Return the table's tasks: those it names, or those that every bundle was trained for.

    Raises:
        ConfigError: the bundles have none in common.
    """
    if table.tasks:
        return table.tasks
    known = [set(trained_kinds(folder)) for folder in {f for row in table.rows for f in row.bundles.values()}]
    tasks = tuple(kind for kind in KINDS if all(kind in each for each in known))
    if not tasks:
        raise ConfigError(f"the bundles of {table.source} were trained for different tasks; name some under tasks")
    return tasks
