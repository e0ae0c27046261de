"""Episodes of random numbers."""

from __future__ import annotations

import numpy as np

from udvla_ros.rollouts import episodes as disk


def make(length, seed=0):
    rng = np.random.default_rng(seed)
    frames = length + 1
    return disk.Episode(
        images={
            "gripper": rng.integers(0, 255, (frames, 6, 8, 3), dtype=np.uint8),  # a camera's name may be a field's
            "side": rng.integers(0, 255, (frames, 4, 4, 3), dtype=np.uint8),
        },
        intention=rng.normal(size=(length, 8, 7)).astype(np.float32),
        executed=rng.normal(size=(length, 7)).astype(np.float32),
        joints=rng.normal(size=(frames, 6)).astype(np.float32),
        q_command=rng.normal(size=(frames, 6)).astype(np.float32),
        gripper=rng.random(frames).astype(np.float32),
        gripper_command=rng.random(frames).astype(np.float32),
        tcp_command=rng.normal(size=(frames, 4, 4)).astype(np.float32),
        cubes=rng.normal(size=(frames, 3, 7)).astype(np.float32),
        instruction=f"touch the red cube {'x' * seed}",
        task="touch",
        colour="red",
        seed=seed,
        attempt=seed % 3,
        success_step=length - 1,
    )
