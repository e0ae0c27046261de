from __future__ import annotations

from pathlib import Path

import pytest

from udvla_ros.motion.robot import RobotDescription

ROBOTS = Path(__file__).resolve().parents[2] / "config" / "robots"


@pytest.fixture(scope="session")
def ur5e() -> RobotDescription:
    return RobotDescription.load(ROBOTS / "ur5e_sim.yaml")


@pytest.fixture(scope="session")
def panda() -> RobotDescription:
    return RobotDescription.load(ROBOTS / "panda.yaml")


@pytest.fixture(scope="session")
def real() -> RobotDescription:
    """A UR5e as it is shipped, with its collision check."""
    return RobotDescription.load(ROBOTS / "ur5e.yaml")
