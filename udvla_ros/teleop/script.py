"""A script of an operator: what hands would do after the policy got the arm, written down."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from udvla_ros import resources
from udvla_ros.errors import ConfigError
from udvla_ros.teleop.gamepad import AXES
from udvla_ros.teleop.wish import REST, Wish

BUILTIN = "config/teleop/operator.yaml"
KINDS = {"wait", "jog", "rest", "gripper", "hand_back"}
GRIPPER_TIME = 0.8  # s of a gripper step


@dataclass(frozen=True)
class Step:
    """From ``begin`` to ``end`` s after the policy got the arm.

    ``wish`` is None where nobody touches the arm; ``hand_back`` asks for the policy at ``begin``.
    """

    begin: float
    end: float
    wish: Wish | None = None
    hand_back: bool = False


@dataclass(frozen=True)
class Script:
    """Steps, one after the other."""

    steps: tuple[Step, ...]

    @property
    def seconds(self) -> float:
        """How long it takes."""
        return self.steps[-1].end

    @property
    def away(self) -> float:
        """Seconds in which the policy has not got the arm."""
        hands_back = [step.begin for step in self.steps if step.hand_back]
        touches = [step.begin for step in self.steps if step.wish is not None]
        return (max(hands_back) if hands_back else self.seconds) - min(touches, default=0.0)

    def at(self, elapsed: float) -> Step | None:
        """Return the step in progress, None once it is over."""
        return next((step for step in self.steps if step.begin <= elapsed < step.end), None)

    @classmethod
    def load(cls, name: str) -> Script:
        """Read a script: a file, or ``builtin``.

        Raises:
            ConfigError: it cannot be read, or has a step that is none.
        """
        path = resources.find(BUILTIN if name == "builtin" else name)
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise ConfigError(f"script {path} cannot be read ({str(error).splitlines()[0]})") from None
        listed = data.get("steps") if isinstance(data, dict) and set(data) == {"steps"} else None
        if not isinstance(listed, list) or not listed:
            raise ConfigError(f"{path.name}: give 'steps', a list (see {BUILTIN})")
        return cls(tuple(_steps(listed, path)))


def _steps(listed: list[Any], path: Path) -> Iterator[Step]:
    begin = 0.0
    for number, entry in enumerate(listed, 1):
        step = _step(entry, begin, f"{path.name}: step {number}")
        begin = step.end
        yield step


def _step(entry: Any, begin: float, where: str) -> Step:
    if entry == "hand_back":
        return Step(begin, begin + 0.1, hand_back=True)
    if not isinstance(entry, dict) or len(set(entry) & KINDS) != 1 or set(entry) - KINDS - {"for"}:
        raise ConfigError(f"{where} is {entry!r}; give one of {', '.join(sorted(KINDS))} (see {BUILTIN})")
    (kind,) = set(entry) & KINDS
    value = entry[kind]
    if kind == "wait":
        return Step(begin, begin + _seconds(value, where))
    if kind == "rest":
        return Step(begin, begin + _seconds(value, where), REST)
    if kind == "gripper":
        if value not in ("open", "close"):
            raise ConfigError(f"{where}: gripper is {value!r}; give open or close")
        return Step(begin, begin + GRIPPER_TIME, Wish(gripper=1.0 if value == "close" else 0.0))
    if kind == "jog" and isinstance(value, dict) and value and set(value) <= set(AXES):
        twist = np.zeros(6)
        for axis, speed in value.items():
            twist[AXES.index(axis)] = _number(speed, where)
        return Step(begin, begin + _seconds(entry.get("for"), where), Wish(twist=twist))
    raise ConfigError(f"{where}: jog gives m/s or rad/s of {', '.join(AXES)}, and 'for' how many seconds")


def _number(value: Any, where: str) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not np.isfinite(value):
        raise ConfigError(f"{where}: {value!r} is not a number")
    return float(value)


def _seconds(value: Any, where: str) -> float:
    seconds = _number(value, where)
    if not 0 < seconds <= 60:
        raise ConfigError(f"{where}: {seconds:g} s; give above 0 and at most 60")
    return seconds
