"""Worlds and a policy that knows the answer, to test the loop and not the policy."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("udvla_ros.sim.gl", exc_type=ImportError)  # not mujoco itself: OpenGL must be chosen first

from udvla_ros.evaluation.closed_loop import ClosedLoop, LoopOptions, worlds
from udvla_ros.motion.action_space import TcpDeltaSpace
from udvla_ros.motion.robot import RobotDescription
from udvla_ros.sim.expert import Expert
from udvla_ros.sim.tasks import parse

CHUNK = 8


class ExpertPolicy:
    """Not a policy: the scripted expert behind a policy's interface.

    It learns which world a picture is of by the identity of the array, and which cube is meant from the sentence.
    """

    def __init__(self) -> None:
        self.world_of = {}
        self.batches = []
        self.spoil = lambda index, actions: actions

    def infer_batch(self, observations, options=None, seed=0, previous=None):
        self.batches.append(len(observations))
        return [self._chunk(index, observation) for index, observation in enumerate(observations)]

    def _chunk(self, index, observation):
        world = self.world_of[id(observation.images["front"])]
        actions = self.spoil(index, Expert(world, parse(observation.instruction)).plan(CHUNK))
        return SimpleNamespace(actions=actions, predicted=dict(observation.images), timings_ms={"total": 1.0})


def observe(images, instruction, stamp):
    return SimpleNamespace(images=images, instruction=instruction, stamp=stamp)


@pytest.fixture(scope="session")
def three_worlds():
    with worlds(3) as made:
        yield made


@pytest.fixture(scope="session")
def space():
    return TcpDeltaSpace(RobotDescription.load("ur5e_sim"))


@pytest.fixture
def expert(three_worlds, monkeypatch):
    policy = ExpertPolicy()
    for world in three_worlds:
        look = world.render

        def render(world=world, look=look):
            images = look()
            policy.world_of[id(images["front"])] = world
            policy.kept = [*getattr(policy, "kept", []), images]  # or identities would be reused
            return images

        monkeypatch.setattr(world, "render", render)
    return policy


@pytest.fixture
def make_loop(expert, space, three_worlds):
    def make(**options):
        return ClosedLoop(expert, space, three_worlds, observe, options=LoopOptions(**options))

    return make


@pytest.fixture
def random_images():
    rng = np.random.default_rng(0)

    def make(height=48, width=64):
        return rng.integers(0, 256, (height, width, 3), np.uint8)

    return make
