"""Which of several chunks goes on like the plan in force.

A policy that samples may change its mind from chunk to chunk: left around the cube, then right. Of several draws for
one observation, the one that leads most nearly where the steps lead that are still to be played keeps to one mind.
"""

from __future__ import annotations

import numpy as np

from udvla_ros.errors import ConfigError


def ahead(elapsed: float, steps: int) -> int | None:
    """Return the first step of a chunk that is still to be played after ``elapsed`` steps; None: it says nothing."""
    first = round(elapsed)
    return first if 0 <= first < steps else None


def nearest(chunks: np.ndarray, plan: np.ndarray, scale: np.ndarray, space: str, gripper: int | None) -> int:
    """Return the number of the chunk that leads most nearly where ``plan`` leads.

    Args:
        chunks: ``[N, K, D]`` actions from now on.
        plan: ``[M, D]`` the actions from now on of the plan in force.
        scale: ``[D]`` by which dimensions compare.
        space: what an action is: deltas are summed to where they lead, absolute ones compared as they are.
        gripper: the dimension that is absolute in every space.
    """
    if space not in ("tcp_delta", "joint_delta", "joint_absolute"):
        raise ConfigError(f"chunks of action space '{space}' cannot be compared: give samples 1")
    steps = min(chunks.shape[1], len(plan))
    apart = (chunks[:, :steps] - plan[:steps]) / scale
    if space != "joint_absolute":
        moved = apart.cumsum(1)
        if gripper is not None:
            moved[..., gripper] = apart[..., gripper]
        apart = moved
    return int(np.linalg.norm(apart, axis=-1).mean(1).argmin())
