"""Declare described, ranged parameters from a table, and read them back as plain values."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from udvla_ros.errors import ConfigError, UdvlaError
from udvla_ros.schema import meant

WORDS = {False: "off", True: "on"}  # what YAML 1.1 takes for no and yes
ALIKE = 0.8  # likeness from which on a name is taken for a misspelt one of ours
OF_ROS = ("use_sim_time", "qos_overrides.", "start_type_description_service")  # every node has these


@dataclass(frozen=True)
class Entry:
    """One parameter: default (its type is the parameter's), description, bounds, choices, read-only or live."""

    name: str
    default: bool | int | float | str
    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    read_only: bool = False

    def descriptor(self) -> ParameterDescriptor:
        descriptor = ParameterDescriptor(description=self.description, read_only=self.read_only)
        if self.choices:
            descriptor.additional_constraints = "one of: " + ", ".join(self.choices)
        if self.low is not None and self.high is not None:
            if isinstance(self.default, float):
                span = FloatingPointRange(from_value=float(self.low), to_value=float(self.high), step=0.0)
                descriptor.floating_point_range = [span]
            else:
                span = IntegerRange(from_value=int(self.low), to_value=int(self.high), step=1)
                descriptor.integer_range = [span]
        return descriptor


def shared(arguments: Sequence[str]) -> set[str]:
    """Return the parameters that the files on a command line give to nodes of any name: others' may be among them."""
    names: set[str] = set()
    for flag, file in pairwise(arguments):
        if flag != "--params-file":
            continue
        try:
            content = yaml.safe_load(Path(file).read_text(encoding="utf-8")) or {}
            for node, sections in content.items():
                if "*" in node:
                    names |= set(sections.get("ros__parameters") or {})
        except (OSError, ValueError, AttributeError, yaml.YAMLError):
            continue  # rcl has refused it already, or will
    return names


class Parameters:
    """The parameters of a node. A set that breaks a range or a choice, or that ``check`` refuses, is refused whole.

    Args:
        check: called with the values as they would be; raises :class:`UdvlaError` or ValueError to refuse.
        changed: called with what was set, once it is accepted.
    """

    def __init__(
        self,
        node: Node,
        table: Sequence[Entry],
        check: Callable[[dict[str, Any]], object] | None = None,
        changed: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self._node, self._check, self._changed = node, check, changed
        self._table = {entry.name: entry for entry in table}
        node.add_on_set_parameters_callback(self._on_set)
        node.add_post_set_parameters_callback(self._after_set)
        node.add_pre_set_parameters_callback(self._worded)
        node._parameter_overrides |= {p.name: p for p in self._worded(list(node._parameter_overrides.values()))}
        for entry in table:
            node.declare_parameter(entry.name, entry.default, entry.descriptor())
        foreign = {name for name in shared(sys.argv) if not get_close_matches(name, self._table, cutoff=ALIKE)}
        for name in node._parameter_overrides:
            if not (node.has_parameter(name) or name.startswith(OF_ROS) or name in foreign):
                raise ConfigError(f"{node.get_name()}: {name} is not one of its parameters; {meant(name, self._table)}")

    def __getitem__(self, name: str) -> Any:
        return self._node.get_parameter(name).value

    def values(self) -> dict[str, Any]:
        """Return all values by name."""
        return {name: self[name] for name in self._table if self._node.has_parameter(name)}

    def _worded(self, parameters: list[Parameter]) -> list[Parameter]:
        """Return the parameters with YAML's yes and no as the words that they were written as: off, on."""
        return [
            Parameter(p.name, value=WORDS[p.value])
            if isinstance(p.value, bool) and p.name in self._table and WORDS[p.value] in self._table[p.name].choices
            else p
            for p in parameters
        ]

    def _on_set(self, parameters: list[Parameter]) -> SetParametersResult:
        new = {p.name: p.value for p in parameters if p.name in self._table}
        for name, value in new.items():
            if isinstance(value, float) and not math.isfinite(value):
                return SetParametersResult(successful=False, reason=f"{name} is {value}; give a finite number")
            choices = self._table[name].choices
            if choices and value not in choices:
                return SetParametersResult(
                    successful=False, reason=f"{name} is '{value}'; it must be one of: {', '.join(choices)}"
                )
        try:
            if self._check is not None:
                self._check(self.values() | new)
        except (UdvlaError, ValueError) as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _after_set(self, parameters: list[Parameter]) -> None:
        if self._changed is not None:
            self._changed({p.name: p.value for p in parameters if p.name in self._table})
