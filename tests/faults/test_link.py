"""Every fault between arbiter and controller is borne, and one that nobody hears of is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from udvla_ros.motion.robot import RobotDescription
from udvla_ros.proving.faults import link
from udvla_ros.proving.faults.report import plot, table


@pytest.fixture(scope="module")
def robot() -> RobotDescription:
    return RobotDescription.load("ur5e")


@pytest.mark.parametrize("fault", link.FAULTS, ids=lambda fault: fault.name)
def test_it_is_borne(robot, fault):
    outcome = link.run(fault, robot)
    assert outcome.faults() == [], outcome.row()
    assert outcome.notes["worst"]["velocity"] > 0.2, "it moved"


def deaf(scene: link.Scene) -> None:
    """Deactivate the controller and activate it before its arm has fallen behind, and tell nobody."""
    scene.mark()
    scene.rig.controller.arm.deactivate()
    scene.rig.controller.restarted()
    scene.rig.wait(0.1)
    scene.rig.controller.arm.activate(scene.rig.controller.state[0])
    scene.drive(0.6)


def ahead(scene: link.Scene) -> None:
    """Set the driver's clock and send a chunk before any joint state tells."""
    scene.mark()
    scene.rig.driver_ahead(0.2)
    scene.drive(1.0)


@pytest.mark.parametrize("do", [deaf, ahead])
def test_the_audit_sees_what_is_not_borne(robot, do, tmp_path):
    outcome = link.run(replace(link.FAULTS[0], name="nobody hears", do=do), robot)
    assert outcome.violations > 0 and outcome.notes["worst"]["velocity"] > 1.0
    text = table({"faults": [outcome.row()]})
    assert "nobody hears" in text and "FAILED" in text
    assert plot(tmp_path / "faults.png", [outcome]).stat().st_size > 5_000
