"""Which room may import what, read from the sources (docs/architecture.md, 'Rooms')."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "udvla_ros"


def imported(path: Path) -> set[str]:
    """Top-level names of everything a file imports, wherever in it."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    parts = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    return {name.split(".")[0] for name in plain | parts}


@pytest.mark.parametrize("room", ["motion", "sim", "rollouts", "robots", "teleop", "doctor", "monitor", "console"])
def test_the_arm_and_the_world_need_no_torch(room):
    files = sorted((PACKAGE / room).rglob("*.py"))
    assert len(files) > 3
    assert not [path.name for path in files if imported(path) & {"torch", "transformers"}]


def test_rclpy_is_imported_by_nodes_rigs_and_bringup_alone():
    users = {path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if "rclpy" in imported(path)}
    assert Path("nodes/arbiter_node.py") in users
    homes = {("nodes",), ("proving", "rigs"), ("bringup.py",)}
    assert not [str(path) for path in users if not homes & {path.parts[:1], path.parts[:2]}]


def test_only_the_command_line_knows_the_proving_ground():
    users = {
        path.relative_to(PACKAGE).parts[0]
        for path in PACKAGE.rglob("*.py")
        if "udvla_ros.proving" in path.read_text(encoding="utf-8")
    }
    assert users == {"cli", "proving"}
