"""What can be said about the launch files without launch."""

from __future__ import annotations

import ast
import sys
import types

import pytest

from udvla_ros import graph, launch_table


class Recorded:
    """Stands for any class of launch: keeps what it was made with."""

    def __init__(self, *args, **kwargs) -> None:
        self.args, self.kwargs = args, kwargs


class Context:
    """Stands for ``LaunchContext``: what was given, and no argument vector."""

    def __init__(self, **given: str) -> None:
        self.launch_configurations, self.argv = given, ()


@pytest.fixture
def stand_in(monkeypatch):
    """Put modules of the names that launch_table imports in place, each name a class of its own."""
    names = {
        "launch": ["LaunchContext", "LaunchDescription"],
        "launch.actions": ["DeclareLaunchArgument", "OpaqueFunction", "SetEnvironmentVariable"],
        "launch_ros": [],
        "launch_ros.actions": ["Node"],
    }
    for module, classes in names.items():
        made = types.ModuleType(module)
        for name in classes:
            setattr(made, name, type(name, (Recorded,), {}))
        monkeypatch.setitem(sys.modules, module, made)


@pytest.mark.parametrize("name", graph.GRAPHS)
def test_description_declares_the_arguments_and_starts_the_rows(stand_in, name):
    (entities,) = launch_table.launch_description(name).args
    kinds = {}
    for entity in entities:
        kinds.setdefault(type(entity).__name__, []).append(entity)
    defaults = {entity.args[0]: entity.kwargs["default_value"] for entity in kinds["DeclareLaunchArgument"]}
    assert defaults == {key: a.default for key, a in graph.GRAPHS[name].arguments.items()}
    variables = {entity.args[0] for entity in kinds.get("SetEnvironmentVariable", [])}
    assert ("ROS_AUTOMATIC_DISCOVERY_RANGE" in variables) == graph.GRAPHS[name].loopback
    take, start = (entity.kwargs["function"] for entity in kinds["OpaqueFunction"])
    assert entities[0].kwargs["function"] is take  # before the defaults are there
    take(Context(namespace="left"))
    nodes = start(Context(**defaults))
    rows = graph.resolve(name, {"namespace": "left"})
    assert [node.kwargs["executable"] for node in nodes] == [row.executable for row in rows]
    for node, row in zip(nodes, rows, strict=True):
        assert node.kwargs["package"] == "udvla_ros" and node.kwargs["name"] == row.name
        assert node.kwargs["parameters"] == [*row.parameter_files, dict(row.parameters)]
        assert (node.kwargs["on_exit"] is not None) == row.essential


@pytest.mark.parametrize("name", graph.GRAPHS)
def test_each_graph_has_a_launch_file_that_only_names_it(name, repository):
    tree = ast.parse((repository / "launch" / f"{name}.launch.py").read_text())
    function = next(n for n in tree.body if isinstance(n, ast.FunctionDef))
    assert function.name == "generate_launch_description"
    calls = [n for n in ast.walk(function) if isinstance(n, ast.Call)]
    assert [ast.literal_eval(call.args[0]) for call in calls] == [name]
