"""The launch files start what the table says; where launch is not installed, these are skipped."""

from __future__ import annotations

import runpy

import pytest

from udvla_ros import graph

launch = pytest.importorskip("launch")
launch_ros = pytest.importorskip("launch_ros.actions")


@pytest.mark.parametrize("name", graph.GRAPHS)
def test_launch_file_is_the_table(name, repository):
    module = runpy.run_path(str(repository / "launch" / f"{name}.launch.py"))
    description = module["generate_launch_description"]()
    context = launch.LaunchContext()
    declared, nodes = {}, []
    for entity in description.entities:
        if isinstance(entity, launch.actions.DeclareLaunchArgument):
            declared[entity.name] = entity
            entity.visit(context)
        elif isinstance(entity, launch.actions.OpaqueFunction):
            nodes += entity.visit(context)
    assert set(declared) == set(graph.GRAPHS[name].arguments)
    assert [node.node_executable for node in nodes] == [row.executable for row in graph.resolve(name)]
