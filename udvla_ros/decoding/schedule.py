"""How many slots stay masked after each denoising step.

``public`` is the released code: ``floor(N cos(pi/2 (s+1)/T))`` of all N slots. ``paper`` (arXiv 2511.01718,
section 3.3) keeps the share ``cos(pi/2 (T+1-t)/(T+1))`` of what is still masked, for t = T..1. Both end at 0.
"""

from __future__ import annotations

import math

from udvla_ros.errors import ConfigError

SCHEDULES = ("public", "paper")


def masked_shares(schedule: str, steps: int) -> list[float]:
    """Return the share of all slots that stays masked after each of ``steps`` steps.

    The shares never rise and the last one is 0. Raises ConfigError for an unknown schedule.
    """
    if schedule == "public":
        shares = [math.cos(math.pi / 2 * (step + 1) / steps) for step in range(steps)]
    elif schedule == "paper":
        shares, left = [], 1.0
        for t in range(steps, 0, -1):
            left *= math.cos(math.pi / 2 * (steps + 1 - t) / (steps + 1))
            shares.append(left)
    else:
        raise ConfigError(f"unknown schedule '{schedule}'; known: {', '.join(SCHEDULES)}")
    return [*shares[:-1], 0.0]


def early_exit(shares: list[float], iterations: int | None) -> list[float]:
    """Return at most ``iterations`` of the shares, the last one 0: what is open then is committed at once.

    This is CEED-VLA's early exit (arXiv 2506.13725) for a denoising schedule.
    """
    if iterations is None or iterations >= len(shares):
        return shares
    return [*shares[: iterations - 1], 0.0]
