"""What a file of ours may say: one reader of YAML, and checks that are total.

A check takes a value and the key it stands at and returns the value as it is used, or refuses it in one line with the
key, the cause and the mend. No check lets pass what it does not know: types, finiteness, ranges, keys at every level.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from udvla_ros.errors import ConfigError

Check = Callable[[Any, str], Any]


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice: the later one would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:merge" and isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"{key.value} stands twice", problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path, limit: int = 1 << 20) -> Any:
    """Return what a YAML file says.

    Raises:
        ConfigError: it cannot be read, is not UTF-8, not YAML, or says a key twice.
    """
    name = Path(path).name
    try:
        data = Path(path).read_bytes()
        if len(data) > limit:
            raise ConfigError(f"{name}: {len(data)} bytes are no configuration; name another file")
        return yaml.load(data.decode("utf-8-sig"), _Loader)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(f"{name}: line {line} is not UTF-8; save the file as UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f"line {mark.line + 1}: " if mark else ""
        cause = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{name}: {at}not valid YAML ({cause})") from None
    except (ValueError, RecursionError, OverflowError, TypeError) as error:
        raise ConfigError(f"{name}: not valid YAML ({str(error).splitlines()[0][:80]})") from None


def meant(name: object, known: Iterable[str]) -> str:
    """Return what may have been meant by a name that is not known, and all that are."""
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, 1)
    return (f"did you mean {near[0]}? " if near else "") + f"known are {', '.join(known)}"


def shown(value: Any) -> str:
    """Return a value as a line can show it."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def number(
    low: float = -math.inf, high: float = math.inf, above: float = -math.inf, whole: bool = False, unit: str = ""
) -> Check:
    """Return the check of a finite number in [low, high], and beyond ``above``."""
    wants = "a whole number" if whole else "a number"
    wants += f" above {above:g}" if above > -math.inf else f" of at least {low:g}" if low > -math.inf else ""
    wants += f", at most {high:g}" if high < math.inf else ""
    wants += f" ({unit})" if unit else ""

    def check(value: Any, key: str) -> float:
        if isinstance(value, str):
            try:
                said = float(value)
            except ValueError:
                said = math.nan
            if math.isfinite(said):
                raise ConfigError(f"{key}: {shown(value)} is text to YAML, not a number; write {said!r}")
        fine = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
        if fine and isinstance(value, int) and abs(value) > 2**62:
            fine = False
        if not fine or not math.isfinite(value) or not low <= value <= high or not value > above:
            raise ConfigError(f"{key} is {shown(value)}; give {wants}")
        if whole and value != int(value):
            raise ConfigError(f"{key} is {shown(value)}; give {wants}")
        return value

    return check


def flag(value: Any, key: str) -> bool:
    """Check that a value is true or false."""
    if not isinstance(value, bool):
        raise ConfigError(f"{key} is {shown(value)}; give true or false, without quotes")
    return value


def text(*choices: str) -> Check:
    """Return the check of a text in one line, one of ``choices`` where there are any."""

    def check(value: Any, key: str) -> str:
        if not isinstance(value, str) or not value.strip() or not value.isprintable():
            raise ConfigError(f"{key} is {shown(value)}; give {'one of ' + ', '.join(choices) if choices else 'text'}")
        if choices and value not in choices:
            raise ConfigError(f"{key} {value} is not one of {', '.join(choices)}")
        return value

    return check


def topic(value: Any, key: str) -> str:
    """Check the name of a topic, service or action as ROS takes it."""
    name = text()(value, key).removeprefix("~")
    parts = name.removeprefix("/").split("/")
    if not all(part.isascii() and part.isidentifier() and "__" not in part for part in parts):
        raise ConfigError(f"{key} {shown(value)} is no ROS name; give letters, digits and _ between slashes")
    return value


def optional(check: Check) -> Check:
    """Return a check that lets nothing (null) pass as well."""
    return lambda value, key: None if value is None else check(value, key)


def several(item: Check, least: int = 0, most: int | None = None) -> Check:
    """Return the check of a list, each item by ``item``."""

    def check(value: Any, key: str) -> list:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{key} is {shown(value)}; give a list")
        if len(value) < least or (most is not None and len(value) > most):
            wants = str(least) if least == most else f"at least {least}"
            raise ConfigError(f"{key} has {len(value)} entries; give {wants}")
        return [item(one, f"{key}[{i}]") for i, one in enumerate(value)]

    return check


def each(item: Check, name: Check = text()) -> Check:  # noqa: B008, made once
    """Return the check of a mapping of names to values, each by ``item``."""

    def check(value: Any, key: str) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{key} is {shown(value)}; give a mapping of name to value")
        return {name(k, f"a name under {key}"): item(v, f"{key}.{k}") for k, v in value.items()}

    return check


def mapping(keys: Mapping[str, Check], required: Sequence[str] = (), example: str = "") -> Check:
    """Return the check of a mapping with these keys and no other.

    Args:
        keys: the check of each.
        required: keys that must be there.
        example: a file to look at, named where one is missing.
    """

    def check(value: Any, key: str) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise ConfigError(
                f"{key or 'the file'} is {shown(value)}; give a mapping of {', '.join(sorted(keys)[:6])}"
                + (f"; see {example}" if example else "")
            )
        at = f"{key}." if key else ""
        for name in value:
            if name not in keys:
                raise ConfigError(f"{at}{shown(name).strip(chr(39))} is not a key; {meant(name, keys)}")
        for name in required:
            if value.get(name) is None:
                raise ConfigError(f"{at}{name} is missing; add it" + (f" (see {example})" if example else ""))
        return {name: keys[name](said, at + name) for name, said in value.items()}

    return check


def section(check: Check) -> Check:
    """Return a check of a mapping that may be left empty."""
    return lambda value, key: check({} if value is None else value, key)


def of(kind: Any, required: Sequence[str] = ()) -> Check:
    """Return the check of a mapping of the fields of a dataclass, by their types.

    A field's metadata narrow it: ``field(metadata={"low": 0.0})``, or ``{"check": ...}`` for a check of its own.
    """
    hints = typing.get_type_hints(kind)
    return mapping({f.name: _typed(hints[f.name], f.metadata) for f in dataclasses.fields(kind)}, required)


def _typed(hint: Any, metadata: Mapping[str, Any]) -> Check:
    if "check" in metadata:
        return metadata["check"]
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        (inner,) = (one for one in typing.get_args(hint) if one is not type(None))
        return optional(_typed(inner, metadata))
    if typing.get_origin(hint) is tuple:
        items = several(_typed(typing.get_args(hint)[0], metadata))
        return lambda value, key: tuple(items(value, key))
    if hint is bool:
        return flag
    if hint in (float, int):
        return number(**metadata, whole=hint is int)
    if hint is str:
        return text()
    raise TypeError(f"no check of {hint}; name one in the field's metadata")
