"""Look over a robot file without the robot: what loads, what is doubtful, what a bundle would say."""

from __future__ import annotations

from typing import Any

import numpy as np

from udvla_ros.errors import ContractError
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.robots.new import LOOK

SAMPLES = 2000
LEAST = 0.02  # share of poses within the joints' ranges whose TCP lies in the workspace


def look_over(robot: RobotDescription, bundle: Any = None) -> list[tuple[str, str]]:
    """Return findings, (``ok``, ``warn`` or ``fail``, line) each."""
    chain = f"{len(robot.joints)} joints {', '.join(robot.joints)}"
    found = [("ok", f"{chain}; TCP {robot.tcp_frame} in {robot.base_frame}")]
    marked = [line.strip() for line in robot.path.read_text(encoding="utf-8").splitlines() if f"# {LOOK}" in line]
    if marked:
        found.append(("warn", f"{len(marked)} lines still marked {LOOK}, such as: {marked[0]}"))
    q = np.random.default_rng(0).uniform(robot.limits.lower, robot.limits.upper, (SAMPLES, len(robot.joints)))
    inside = np.mean([robot.workspace.depth(robot.kinematics.forward(row)[None, :3, 3]).max() <= 0 for row in q])
    size = np.round(np.diff(robot.workspace.box, axis=0)[0], 2).tolist()
    line = f"workspace {size} m; {inside:.1%} of the poses within the joint limits reach into it"
    found.append(("ok" if inside >= LEAST else "warn", line))
    if len(robot.joints) < 6:
        found.append(("ok", "fewer than six joints: bundles of joint_delta or joint_absolute, not of tcp_delta"))
    if not 1 <= len(robot.cameras) <= 4:
        found.append(("fail", f"{len(robot.cameras)} cameras; name 1 to 4 under cameras"))
    else:
        found.append(("ok", "cameras " + ", ".join(f"{n} on {c['topic']}" for n, c in robot.cameras.items())))
    found.append(("ok", f"gripper {robot.gripper.joint}" if robot.gripper else "no gripper: its bundles command none"))
    if "command" not in robot.topics:
        found.append(("fail", "topics.command is missing: where the controller listens"))
    if robot.capsules is None:
        found.append(("warn", "no collision check: the arm may meet itself or the table; see collision in ur5e.yaml"))
    if bundle is not None:
        from udvla_ros.policy.contract import check

        try:
            check(bundle, robot)
            found.append(("ok", f"fits bundle '{bundle.name}'"))
        except ContractError as error:
            found.append(("fail", str(error)))
    return found
