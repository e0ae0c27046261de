"""Whose each step of a recorded episode was: the demonstrator's, the policy's, or a hand's that took over."""

from __future__ import annotations

import numpy as np

from udvla_ros.rollouts.bags.episode import Told
from udvla_ros.rollouts.episodes import By

BEFORE = 2.0  # s before a takeover in which the policy was on a wrong way


def whose(modes: Told, times: np.ndarray, before: float = BEFORE) -> np.ndarray:
    """Return :class:`By` of each time, uint8 [T].

    A hand that follows the policy corrects it; one without a policy before it demonstrates. What the policy did in the
    ``before`` seconds that led to a takeover, and what nobody did, is not to be learnt.
    """
    bounds = [*modes.time, np.inf]
    by = np.full(len(times), By.NOBODY, np.uint8)
    policy_had_it, policy_until = False, -np.inf
    for begin, end, mode in zip(bounds[:-1], bounds[1:], modes.text, strict=True):
        inside = (times >= begin) & (times < end)
        if mode == "POLICY":
            by[inside] = By.POLICY
            policy_had_it, policy_until = True, end
        elif mode == "TELEOP":
            by[inside] = By.CORRECTION if policy_had_it else By.DEMONSTRATED
            led_here = (by == By.POLICY) & (times >= policy_until - before) & (times < begin)
            by[led_here] = By.NOBODY
    return by
