"""A gamepad's axes and buttons as jogs, by a mapping file; a button must be held for anything to move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from udvla_ros.errors import ConfigError
from udvla_ros.teleop.actions import ACTIONS
from udvla_ros.teleop.deadman import Deadman
from udvla_ros.teleop.jog import Speeds
from udvla_ros.teleop.wish import REST, Wish

AXES = ("x", "y", "z", "roll", "pitch", "yaw")
KEYS = {"name", "deadman", "deadzone", "axes", "buttons"}


@dataclass(frozen=True)
class Mapping:
    """Which axis and button does what.

    Attributes:
        deadman: button that must be held.
        deadzone: deflection 0 to 1 below which an axis is at rest.
        axes: name of the twist's axis -> (index in the message, sign).
        buttons: action -> index in the message.
    """

    deadman: int
    deadzone: float
    axes: dict[str, tuple[int, float]]
    buttons: dict[str, int]

    @classmethod
    def load(cls, path: str | Path) -> Mapping:
        """Read a mapping file.

        Raises:
            ConfigError: it cannot be read, or a key of it is missing or unknown.
        """
        try:
            data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise ConfigError(f"mapping {path} cannot be read ({str(error).splitlines()[0]})") from None
        where = Path(path).name
        if not isinstance(data, dict) or set(data) - KEYS or {"deadman", "axes"} - set(data):
            raise ConfigError(f"{where}: give deadman and axes, and perhaps {', '.join(sorted(KEYS))}")
        axes = {
            _named(name, AXES, f"{where}: axes"): _axis(value, f"{where}: axes.{name}")
            for name, value in data["axes"].items()
        }
        buttons = {
            _named(name, ACTIONS, f"{where}: buttons"): _index(value, f"{where}: buttons.{name}")
            for name, value in (data.get("buttons") or {}).items()
        }
        deadzone = data.get("deadzone", 0.1)
        if not isinstance(deadzone, (int, float)) or not 0 <= deadzone < 1:
            raise ConfigError(f"{where}: deadzone is {deadzone!r}; give 0 to below 1")
        deadman = _index(data["deadman"], f"{where}: deadman")
        taken = [deadman, *buttons.values()]
        if len(set(taken)) != len(taken):
            raise ConfigError(f"{where}: a button has two meanings; give each its own")
        return cls(deadman, float(deadzone), axes, buttons)


def _named(name: Any, known: Any, where: str) -> str:
    if name not in known:
        raise ConfigError(f"{where}: {name} is not one of {', '.join(known)}")
    return str(name)


def _index(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ConfigError(f"{where} is {value!r}; give its index in the message, 0 or more")
    return value


def _axis(value: Any, where: str) -> tuple[int, float]:
    """Read ``3`` or ``{index: 3, sign: -1}``."""
    if not isinstance(value, dict):
        return _index(value, where), 1.0
    if set(value) - {"index", "sign"} or value.get("sign", 1) not in (1, -1):
        raise ConfigError(f"{where}: give an index, or index and sign (1 or -1)")
    return _index(value.get("index"), where), float(value.get("sign", 1))


class Gamepad:
    """What the pad said last, as an operator's wish.

    Args:
        mapping: its axes and buttons.
        speeds: at full deflection and scale 1.
        timeout: s of silence after which it is taken as let go, unplugged perhaps; a driver that repeats its state
            (``joy_node``'s ``autorepeat_rate``) must do so faster than that.
    """

    def __init__(self, mapping: Mapping, speeds: Speeds, timeout: float = 0.3) -> None:
        self.mapping, self.speeds = mapping, speeds
        self.fault = ""
        self._deadman = Deadman(timeout)
        self._axes = np.zeros(0)
        self._pressed: dict[str, bool] = {}

    def feed(self, axes: Sequence[float], buttons: Sequence[int], now: float) -> list[str]:
        """Take one message; returns the actions whose buttons were pressed since the last one.

        A pad that comes (back) with buttons held has not pressed them: they count once they have been let go.
        """
        came = self.silent(now)
        mapping = self.mapping
        most = max((index for index, _ in mapping.axes.values()), default=-1)
        most_button = max([mapping.deadman, *mapping.buttons.values()])
        self.fault = ""
        if most >= len(axes) or most_button >= len(buttons):
            self.fault = f"the pad has {len(axes)} axes and {len(buttons)} buttons; another mapping file fits it"
        elif not np.isfinite(np.asarray(axes, float)).all():
            self.fault = "the pad sent an axis that is not finite"
        if self.fault:
            self._deadman.distrust()
            self._pressed = {}
            return []
        self._axes = np.asarray(axes, float)
        self._deadman.feed(bool(buttons[mapping.deadman]), now)
        before = {} if came else self._pressed
        self._pressed = {name: bool(buttons[index]) for name, index in mapping.buttons.items()}
        return [name for name, down in self._pressed.items() if down and not before.get(name, True)]

    def silent(self, now: float) -> bool:
        """Return whether nothing has come for the timeout: no driver, or no pad."""
        return self._deadman.silent(now)

    def distrust(self) -> None:
        """Let the deadman button count only after it was let go."""
        self._deadman.distrust()

    def held(self, now: float) -> bool:
        """Return whether the deadman button is held, and was pressed since the pad came."""
        return not self.fault and self._deadman.held(now)

    def wish(self, now: float, scale: float, frame: str) -> Wish:
        """Return what the sticks ask for at a speed scale 0 to 1; rest while they are centred."""
        if not self.held(now):
            return REST
        twist = np.zeros(6)
        for name, (index, sign) in self.mapping.axes.items():
            value = sign * float(np.clip(self._axes[index], -1.0, 1.0))
            size = max(0.0, abs(value) - self.mapping.deadzone) / (1.0 - self.mapping.deadzone)
            axis = AXES.index(name)
            speed = self.speeds.linear if axis < 3 else self.speeds.angular
            twist[axis] = np.copysign(size, value) * speed * scale
        return Wish(twist=twist, frame=frame) if twist.any() else REST
