from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from motion.rig import examples

from udvla_ros.motion.path import (
    BlendPath,
    BoundedPath,
    BridgePath,
    HaltedPath,
    PlanPath,
    SplinePath,
    StillPath,
    difference,
)
from udvla_ros.motion.plan import Plan


def curve(seed: int) -> SplinePath:
    """Return a path of two joints from before now to a rest."""
    rng = np.random.default_rng(seed)
    s = np.concatenate([[-0.1], np.cumsum(rng.uniform(0.08, 0.2, 5))])
    q, v, a = rng.normal(size=(3, 6, 2))
    v[-1], a[-1] = 0.0, 0.0
    return SplinePath(s, q, v, a, (s, np.linspace(0.0, 1.0, 6)))


def plan(seed: int) -> Plan:
    path = curve(seed)
    times = np.linspace(0.0, path.end, 9)
    q, v, a = path.evaluate(times)
    return Plan(7.0, times, q, v, a, np.linspace(0.0, 1.0, 9))


def bridged(old, new) -> BridgePath:
    return BridgePath(old, new, 0.1, 0.25, difference(old, new, 0.1))


MAKERS = {
    "spline": curve,
    "delayed": lambda seed: curve(seed).delayed(0.07),
    "plan": lambda seed: PlanPath(plan(seed), 7.1),
    "blend": lambda seed: BlendPath(curve(seed), curve(seed + 1), 0.1, 0.2),
    "bridge": lambda seed: bridged(curve(seed), curve(seed + 1)),
    "halted": lambda seed: HaltedPath(curve(seed), 0.1, 0.2),
    "bounded": lambda seed: BoundedPath(PlanPath(plan(seed), 7.0), 0.05, 0.3),
    "still": lambda seed: StillPath(np.ones(2), curve(seed)),
}


@pytest.mark.parametrize("kind", MAKERS)
@examples(15)
@given(st.integers(0, 10**6))
def test_derivatives_are_those_of_the_position_and_end_at_rest(kind, seed):
    path, step = MAKERS[kind](seed), 1e-5
    s = np.linspace(step, max(path.end, 0.1) + 0.1, 211)
    _q, q1, q2 = path.evaluate(s)
    before, after = path.evaluate(s - step)[:2], path.evaluate(s + step)[:2]
    smooth = np.abs(q2).max() + 1.0  # where the third derivative jumps, differences are off by half a step of it
    np.testing.assert_allclose((after[0] - before[0]) / (2 * step), q1, atol=2e-4 * smooth)
    np.testing.assert_allclose((after[1] - before[1]) / (2 * step), q2, atol=2e-3 * smooth)
    late = path.evaluate(np.array([path.end, path.end + 1.0]))
    np.testing.assert_allclose(late[0][0], late[0][1], atol=1e-9)
    assert np.abs(late[1]).max() < 1e-9 and np.abs(late[2][1]).max() < 1e-6
    assert path.last >= path.end


def test_a_blend_is_the_old_path_at_first_and_the_new_one_after_its_window():
    old, new = curve(1), curve(2)
    blend = BlendPath(old, new, 0.1, 0.2)
    for path, s in ((old, np.linspace(0.0, 0.1, 5)), (new, np.linspace(0.3, 0.8, 5))):
        for mixed, pure in zip(blend.evaluate(s), path.evaluate(s), strict=True):
            np.testing.assert_allclose(mixed, pure, atol=1e-9)


def test_a_bridge_goes_on_from_the_old_path_and_ends_on_the_new_one_whatever_the_old_one_does_later():
    old, new = curve(1), curve(2)
    bridge = bridged(old, new)
    for path, s in ((old, np.linspace(0.0, 0.099, 5)), (new, np.linspace(0.351, 0.8, 5))):
        for mixed, pure in zip(bridge.evaluate(s), path.evaluate(s), strict=True):
            np.testing.assert_allclose(mixed, pure, atol=1e-9)
    s = np.array([0.1 - 1e-9, 0.1 + 1e-9])
    for value in bridge.evaluate(s):
        np.testing.assert_allclose(value[0], value[1], atol=1e-5)
    halted = bridged(HaltedPath(old, 0.1, 0.05), new)
    s = np.linspace(0.0, 0.8, 50)
    for one, other in zip(bridge.evaluate(s), halted.evaluate(s), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-9)


def test_a_halt_leaves_the_path_at_half_its_duration_and_the_gripper_with_it():
    path = curve(3)
    halted, bounded = HaltedPath(path, 0.1, 0.2), BoundedPath(path, 0.1, 0.2)
    late = np.array([halted.end])
    np.testing.assert_allclose(halted.evaluate(late)[0], path.evaluate(np.array([0.2]))[0], atol=1e-12)
    np.testing.assert_allclose(halted.gripper(late + 9), path.gripper(np.array([0.2])))
    np.testing.assert_allclose(bounded.gripper(late + 9), 1.0)
