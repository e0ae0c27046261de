"""One world for all tests of the room: building it takes a while, resetting it does not."""

import pytest


@pytest.fixture(scope="session")
def world():
    from udvla_ros.sim.world import TabletopWorld

    world = TabletopWorld(render=True)
    yield world
    world.close()
