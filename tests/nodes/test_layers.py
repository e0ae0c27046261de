"""What may be imported where, told by real interpreters."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("rclpy")


def loaded(module: str) -> set[str]:
    code = f"import {module}, sys; print(*sorted(m for m in sys.modules if '.' not in m))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["arbiter_node", "sim_node", "policy_node", "recorder_node", "doctor"])
def test_no_torch_before_a_bundle_is_loaded(module):
    assert not loaded(f"udvla_ros.nodes.{module}") & {"torch", "transformers"}


@pytest.mark.parametrize("module", ["sim.jtc", "nodes.images", "nodes.sim_robot", "nodes.inference", "bringup"])
def test_parts_that_need_no_ros_import_none(module):
    assert "rclpy" not in loaded(f"udvla_ros.{module}")
