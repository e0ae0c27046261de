"""A benchmark for vla-eval without a simulator: two cameras of noise, seven steps, a restart after the fourth."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from vla_eval.benchmarks.base import StepBenchmark, StepResult
from vla_eval.specs import GRIPPER_CLOSE_POS, IMAGE_RGB, LANGUAGE, POSITION_DELTA, ROTATION_AA

ACTIONS: list[np.ndarray] = []


class ToyBenchmark(StepBenchmark):
    """Notes every action it is given."""

    def __init__(self, send_wrist_image: bool = False) -> None:
        super().__init__()
        self.wrist, self.count = send_wrist_image, 0

    def get_tasks(self) -> list[dict[str, Any]]:
        return [{"name": "touch the red cube", "suite": "toy"}]

    def reset(self, task: dict[str, Any]) -> int:
        self.count = 0
        return 0

    def step(self, action: dict[str, Any]) -> StepResult:
        ACTIONS.append(np.asarray(action["actions"]))
        self.count += 1
        np.savez(os.environ["TOY_LOG"], actions=np.stack(ACTIONS))
        return StepResult(obs=self.count, reward=0.0, done=self.count == 7, info={})

    def make_obs(self, raw_obs: int, task: dict[str, Any]) -> dict[str, Any]:
        rng = np.random.default_rng(raw_obs)
        images = {"agentview": rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)}
        if self.wrist:
            images["wrist"] = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        return {"images": images, "task_description": task["name"], "episode_restart": raw_obs == 4}

    def check_done(self, step_result: StepResult) -> bool:
        return bool(step_result.done)

    def get_step_result(self, step_result: StepResult) -> dict[str, Any]:
        return {"success": True}

    def get_metadata(self) -> dict[str, Any]:
        return {"max_steps": 7}

    def get_action_spec(self) -> dict[str, Any]:
        return {"position": POSITION_DELTA, "rotation": ROTATION_AA, "gripper": GRIPPER_CLOSE_POS}

    def get_observation_spec(self) -> dict[str, Any]:
        return {"agentview": IMAGE_RGB, "language": LANGUAGE, **({"wrist": IMAGE_RGB} if self.wrist else {})}
