"""Does the bundle fit the robot? What policy_node will say at configure, before it runs."""

from __future__ import annotations

from typing import Any

import numpy as np

from udvla_ros.doctor.report import Finding, fail, ok, warn
from udvla_ros.doctor.snapshot import Snapshot
from udvla_ros.errors import UdvlaError
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.policy import contract
from udvla_ros.rollouts.frames import shaped


def check(robot: RobotDescription, seen: Snapshot, config: Any) -> list[Finding]:
    """Judge a bundle's configuration against the robot file and the cameras seen."""
    try:
        contract.check(config, robot)
    except UdvlaError as error:
        text, _, mend = str(error).partition(": ")
        return [fail("bundle", text, mend or "use a bundle made for this robot")]
    found = [
        ok(
            "bundle",
            f"{config.name}: cameras {', '.join(config.cameras)}, {config.action_space}, "
            f"{config.chunk} steps at {config.control_hz:g} Hz",
        )
    ]
    for view in getattr(config, "views", ()):
        camera = seen.cameras.get(view.name)
        for width, height in sorted(camera.sizes) if camera is not None else ():
            entry, blank = robot.cameras[view.name], np.zeros((height, width, 3), np.uint8)
            try:
                if not getattr(getattr(config, "images", None), "squash", False):
                    shaped(blank, view.name, view.height, view.width, entry)
            except UdvlaError as error:
                cause, _, mend = str(error).partition("; ")
                found.append(fail("bundle", cause, mend))
            if width < view.width or height < view.height:
                found.append(
                    warn(
                        "bundle",
                        f"camera {view.name} at {width}x{height} is below its {view.width}x{view.height}",
                        "raise the camera's resolution",
                    )
                )
    for name in config.cameras:
        camera = seen.cameras.get(name)
        if camera is not None and 0.0 < camera.hz() < config.control_hz:
            found.append(
                warn(
                    "bundle",
                    f"camera {name} at {camera.hz():.1f} Hz is slower than the bundle's {config.control_hz:g} Hz",
                    "raise the camera's rate",
                )
            )
    return found
