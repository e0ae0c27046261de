"""A bundle as a model server of vla-eval (0.8): for its benchmarks, and for arms beside them.

A benchmark gets the actions of its own data, one after the other out of a chunk; an arm's ``policy_node`` asks with the
key ``udvla`` (:mod:`udvla_ros.serving.arm`). Refusals travel as vla-eval's error messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from vla_eval.model_servers.base import SessionContext
from vla_eval.model_servers.predict import PredictModelServer
from vla_eval.specs import (
    GRIPPER_CLOSE_NEG,
    GRIPPER_CLOSE_POS,
    IMAGE_RGB,
    LANGUAGE,
    POSITION_DELTA,
    ROTATION_AA,
    ROTATION_EULER,
    DimSpec,
)

from udvla_ros.errors import ConfigError, ObservationError
from udvla_ros.policy import Observation, Policy
from udvla_ros.serving.arm import Arm
from udvla_ros.serving.wire import REQUEST


@dataclass(frozen=True)
class Benchmark:
    """How a benchmark of vla-eval calls its cameras (in the weights' order) and its actions, and what it is asked."""

    images: tuple[str, ...]
    rotation: DimSpec
    gripper: DimSpec
    asked: Mapping[str, Any]


BENCHMARKS = {
    "libero": Benchmark(("agentview", "wrist"), ROTATION_AA, GRIPPER_CLOSE_POS, {"send_wrist_image": True}),
    "calvin": Benchmark(("rgb_static", "rgb_gripper"), ROTATION_EULER, GRIPPER_CLOSE_NEG, {"send_wrist_image": True}),
    # Its specification says positive closes; what it does with a 1 is to open, as the Bridge data means it.
    "simpler": Benchmark(("primary",), ROTATION_EULER, GRIPPER_CLOSE_POS, {}),
}


class BundleServer(PredictModelServer):
    """Serves one policy.

    Args:
        policy: loaded and warm.
        benchmark: a name of :data:`BENCHMARKS`; None: for arms alone.
        execute: actions of a chunk that a benchmark plays before the next one is computed.
        batch: most observations decoded together.
        seed: of the first chunk of a benchmark; each next one has the next.

    Raises:
        ConfigError: the benchmark is unknown, or has another number of cameras than the bundle.
    """

    def __init__(
        self, policy: Policy, benchmark: str | None = None, execute: int | None = None, batch: int = 1, seed: int = 0
    ) -> None:
        if benchmark is not None and benchmark not in BENCHMARKS:
            raise ConfigError(f"unknown benchmark '{benchmark}'; known: {', '.join(BENCHMARKS)}")
        execute = execute or policy.config.chunk
        if not 1 <= execute <= policy.config.chunk:
            raise ConfigError(f"execute is {execute}; the bundle's chunks have {policy.config.chunk} actions")
        super().__init__(chunk_size=execute, max_batch_size=batch)
        self.policy, self._seed = policy, seed
        self._benchmark = BENCHMARKS[benchmark] if benchmark else None
        cameras = policy.config.cameras
        if self._benchmark and len(self._benchmark.images) != len(cameras):
            raise ConfigError(f"{benchmark} has {len(self._benchmark.images)} cameras, the bundle {', '.join(cameras)}")
        self._keys = dict(zip(cameras, self._benchmark.images if self._benchmark else cameras, strict=True))
        self._arms: dict[str, Arm] = {}

    # -- sessions --------------------------------------------------------------------------------------
    async def on_episode_start(self, config: dict[str, Any], ctx: SessionContext) -> None:
        """Begin anew; an arm's session gets whole chunks."""
        await super().on_episode_start(config, ctx)
        if config.get(REQUEST):
            self._session_chunk_sizes[ctx.session_id] = None  # no chunking, says the base
            self._arms[ctx.session_id] = Arm(self.policy)

    async def on_episode_end(self, result: dict[str, Any], ctx: SessionContext) -> None:
        """Forget the session's chunk."""
        await super().on_episode_end(result, ctx)
        self._arms.pop(ctx.session_id, None)

    async def on_observation(self, obs: dict[str, Any], ctx: SessionContext) -> None:
        """Answer; where the benchmark says that a new instruction begins, the rest of the chunk is dropped."""
        if obs.get("episode_restart"):
            self._chunk_buffers.pop(ctx.session_id, None)
        await super().on_observation(obs, ctx)

    # -- inference -------------------------------------------------------------------------------------
    def predict(self, obs: dict[str, Any], ctx: SessionContext) -> dict[str, Any]:
        """Return one answer."""
        return self.predict_batch([obs], [ctx])[0]

    def predict_batch(self, obs_batch: list[dict[str, Any]], ctx_batch: list[SessionContext]) -> list[dict[str, Any]]:
        """Return the answers: benchmarks' observations are decoded together, arms' questions one by one.

        Raises:
            UdvlaError: in a batch, the refusal of one is that of all.
        """
        answers: dict[int, dict[str, Any]] = {}
        seen: dict[int, Observation] = {}
        for row, (obs, ctx) in enumerate(zip(obs_batch, ctx_batch, strict=True)):
            if REQUEST in obs:
                arm = self._arms.setdefault(ctx.session_id, Arm(self.policy))
                answers[row] = arm.answer(obs[REQUEST], obs)
            else:
                seen[row] = self._observation(obs)
        if seen:
            chunks = self.policy.infer_batch(list(seen.values()), seed=self._seed)
            self._seed += 1
            answers |= {row: {"actions": chunk.native} for row, chunk in zip(seen, chunks, strict=True)}
        return [answers[row] for row in range(len(obs_batch))]

    def _observation(self, obs: Mapping[str, Any]) -> Observation:
        images = obs.get("images") or {}
        lacking = [key for key in self._keys.values() if key not in images]
        if lacking:
            raise ObservationError(f"no image '{lacking[0]}' came, but {', '.join(images) or 'none'}")
        pictures = {name: np.asarray(images[key]) for name, key in self._keys.items()}
        return Observation(pictures, str(obs.get("task_description", "")), prepared=True)

    # -- what is said beforehand -----------------------------------------------------------------------
    def get_action_spec(self) -> dict[str, DimSpec]:
        """Return what the actions are, in the benchmark's own terms."""
        if self._benchmark is None:
            return {}
        return {"position": POSITION_DELTA, "rotation": self._benchmark.rotation, "gripper": self._benchmark.gripper}

    def get_observation_spec(self) -> dict[str, DimSpec]:
        """Return what is looked at."""
        return {**dict.fromkeys(self._keys.values(), IMAGE_RGB), "language": LANGUAGE}

    def get_observation_params(self) -> dict[str, Any]:
        """Return what the benchmark shall send besides."""
        return dict(self._benchmark.asked) if self._benchmark else {}
