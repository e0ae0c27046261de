"""What a table compares: rows of bundles with decoding options, read from a file in ``config/evaluation/``.

::

    title: Attention among the tokens of one suffix
    tasks: [touch, pick]            # default: what every bundle of the table was trained for
    seeds: [0, 1]                   # training seeds
    reference: hybrid               # the row that the others are compared with
    rows:
      - name: hybrid
        bundle: runs/ablations/hybrid-{seed}/bundle
        decoding: {decoder: jd3p, steps: 8}             # changes to the bundle's own options
        made_by: udvla train policy --seed {seed} ...   # told where the bundle is missing
    expect:                         # see udvla_ros/evaluation/tables/table_claims.py
      - hybrid > causal

A row may also have a ``label``, ``seeds`` of its own, ``held_out: true`` and a ``condition`` of the scenes. With
``sweep: {steps: [1, 2, 4]}`` each row becomes one row per value of that decoding option, ``NAME-VALUE``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from udvla_ros.errors import ConfigError
from udvla_ros.evaluation.cases import Trial
from udvla_ros.resources import find
from udvla_ros.sim.tasks import KINDS

NAME = re.compile(r"[a-z0-9_][a-z0-9_.-]*")
SEED = "{seed}"
FOLDER = Path("config/evaluation")


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        name: how files and claims call it.
        label: how people do.
        bundles: training seed to folder.
        decoding: changes to the bundle's own decoding options.
        trial: how the scenes and sentences differ from the demonstrations'.
        made_by: the command that makes a bundle, ``{seed}`` for the training seed.
        point: of a sweep, the base row's name and the value.
    """

    name: str
    label: str
    bundles: Mapping[int, str]
    decoding: Mapping[str, Any] = field(default_factory=dict)
    trial: Trial = field(default_factory=Trial)
    made_by: str = ""
    point: tuple[str, float] | None = None

    def command(self, seed: int) -> str:
        """Return the command that makes the bundle of a training seed; empty where the file names none."""
        return " ".join(self.made_by.replace(SEED, str(seed)).split())


@dataclass(frozen=True)
class TableSpec:
    """A table to measure. ``sweep`` is the decoding option that its rows vary, or empty."""

    name: str
    title: str
    source: str
    rows: tuple[Row, ...]
    reference: str
    tasks: tuple[str, ...] = ()
    sweep: str = ""
    expect: tuple[str, ...] = ()

    def row(self, name: str) -> Row:
        """Return the row of that name.

        Raises:
            ConfigError: there is none.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise ConfigError(f"{self.source} has no row '{name}'; it has: {', '.join(r.name for r in self.rows)}")


def load(file: str | Path) -> TableSpec:
    """Read a table's file, by path or by its name in ``config/evaluation``.

    Raises:
        ConfigError: there is no such file, or it is no table.
    """
    bare = Path(file).suffix == "" and not Path(file).exists()
    path = find(FOLDER / f"{file}.yaml" if bare else file)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is no table: it needs title, reference and rows")
    return parse(values, path.stem, str(file))


def parse(values: Mapping[str, Any], name: str, source: str) -> TableSpec:
    """Return the table that a file's contents describe. Raises as :func:`load`."""
    _known(values, ("title", "tasks", "seeds", "reference", "sweep", "rows", "expect"), source)
    _has(values, ("title", "reference", "rows"), source)
    common = values.get("seeds", [0])
    rows = tuple(_row(each, common, source) for each in _list(values["rows"], "rows", source))
    swept = values.get("sweep") or {}
    if swept:
        rows = _swept(rows, swept, source)
    names = [row.name for row in rows]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ConfigError(f"{source} has two rows '{twice[0]}'; give each a name of its own")
    tasks = values.get("tasks") or ()
    wrong = [task for task in tasks if task not in KINDS]
    if isinstance(tasks, str) or wrong:
        raise ConfigError(f"{source}: tasks is a list of {', '.join(KINDS)}, not {tasks if not wrong else wrong[0]}")
    table = TableSpec(
        name,
        str(values["title"]),
        source,
        rows,
        str(values["reference"]),
        tuple(tasks),
        next(iter(swept), ""),
        tuple(str(claim) for claim in values.get("expect") or ()),
    )
    table.row(table.reference)
    return table


def _row(values: Any, seeds: Any, source: str) -> Row:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{source}: a row is a mapping with name and bundle, not '{values}'")
    here = f"{source}, row '{values.get('name', '?')}'"
    _known(values, ("name", "label", "bundle", "seeds", "decoding", "held_out", "condition", "made_by"), here)
    _has(values, ("name", "bundle"), here)
    name, template = str(values["name"]), str(values["bundle"])
    if not NAME.fullmatch(name):
        raise ConfigError(f"{here}: names are small letters, digits, '_', '-' and '.'; use label for the others")
    trained = _list(values.get("seeds", seeds if SEED in template else [0]), "seeds", here)
    if not all(isinstance(seed, int) for seed in trained) or len(set(trained)) != len(trained):
        raise ConfigError(f"{here}: seeds are different whole numbers, not {trained}")
    if len(trained) > 1 and SEED not in template:
        raise ConfigError(f"{here}: {len(trained)} training seeds need {SEED} in bundle: {template}")
    decoding = values.get("decoding") or {}
    if not isinstance(decoding, Mapping):
        raise ConfigError(f"{here}: decoding is a mapping of options, not '{decoding}'")
    return Row(
        name,
        str(values.get("label", name.replace("_", " "))),
        {seed: template.replace(SEED, str(seed)) for seed in trained},
        dict(decoding),
        Trial(bool(values.get("held_out", False)), str(values.get("condition", "plain"))),
        str(values.get("made_by", "")),
    )


def _swept(rows: Sequence[Row], swept: Any, source: str) -> tuple[Row, ...]:
    from udvla_ros.decoding.interface import DecodeOptions

    options = [option.name for option in fields(DecodeOptions)]
    if not isinstance(swept, Mapping) or len(swept) != 1 or next(iter(swept)) not in options:
        raise ConfigError(f"{source}: sweep names one decoding option and its values, such as {{steps: [1, 2, 4]}}")
    option, values = next(iter(swept.items()))
    if not all(isinstance(value, (int, float)) and value > 0 for value in _list(values, "sweep", source)):
        raise ConfigError(f"{source}: sweep takes numbers above zero, not {values}")
    return tuple(
        replace(
            row,
            name=f"{row.name}-{value}",
            label=f"{row.label}, {option.replace('_', ' ')} {value}",
            decoding={**row.decoding, option: value},
            point=(row.name, value),
        )
        for row in rows
        for value in values
    )


def _list(value: Any, what: str, source: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ConfigError(f"{source}: {what} is a list with at least one entry")
    return value


def _known(values: Mapping[str, Any], names: Sequence[str], source: str) -> None:
    unknown = [str(name) for name in values if name not in names]
    if unknown:
        raise ConfigError(f"{source}: unknown key {', '.join(unknown)}; known: {', '.join(names)}")


def _has(values: Mapping[str, Any], names: Sequence[str], source: str) -> None:
    lacking = [name for name in names if not values.get(name)]
    if lacking:
        raise ConfigError(f"{source}: {', '.join(lacking)} is missing")
