"""All checks, in the order in which a person would mend things."""

from __future__ import annotations

from typing import Any

from udvla_ros.doctor import arm, eyes, fit, surroundings, timing, wiring
from udvla_ros.doctor.report import Finding
from udvla_ros.doctor.snapshot import Snapshot
from udvla_ros.motion.robot import RobotDescription

CHECKS = (surroundings.check, wiring.check, timing.check, eyes.check, arm.check, wiring.check_listeners)


def judge(robot: RobotDescription, seen: Snapshot, bundle: Any = None) -> list[Finding]:
    """Return what is right and what is not, for a robot file, one look at the graph and perhaps a bundle's config."""
    found = [finding for check in CHECKS for finding in check(robot, seen)]
    return found + (fit.check(robot, seen, bundle) if bundle is not None else [])
