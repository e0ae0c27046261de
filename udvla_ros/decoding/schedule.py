"""What each denoising step of one modality does: how many slots stay masked, and how warm its draws are.

``public`` is the released code: ``floor(N cos(pi/2 (s+1)/T))`` of all N slots stay masked after step s. ``paper``
(arXiv 2511.01718, section 3.3) keeps the share ``cos(pi/2 (T+1-t)/(T+1))`` of what is still masked, for t = T..1.
Both end at 0. Images and action each have a schedule; its steps are counted from its own first one.
"""

from __future__ import annotations

import math
from itertools import accumulate
from operator import mul
from typing import NamedTuple

from udvla_ros.decoding.interface import DecodeOptions


class Step(NamedTuple):
    """One step of one modality.

    ``masked``: share of its slots that stays masked, 0 in the last step; ``token_temperature``: at which its tokens are
    drawn; ``ranking_temperature``: of the Gumbel noise on the log-confidences that say who is committed, 0: none;
    ``exact``: whether an action is drawn from the model's distribution, or as the best sequence under noise.
    """

    masked: float
    token_temperature: float
    ranking_temperature: float = 0.0
    exact: bool = True


Schedule = list[Step]


def masked_shares(name: str, steps: int) -> list[float]:
    """Return the share of all slots that stays masked after each of ``steps`` steps of the schedule of that name."""
    if name == "public":
        shares = [math.cos(math.pi / 2 * (step + 1) / steps) for step in range(steps)]
    else:
        shares, left = [], 1.0
        for t in range(steps, 0, -1):
            left *= math.cos(math.pi / 2 * (steps + 1 - t) / (steps + 1))
            shares.append(left)
    return [*shares[:-1], 0.0]


def schedule_of(options: DecodeOptions, steps: int) -> Schedule:
    """Return the schedule of a modality that takes so many steps.

    Under an entropy bound the model says how much is committed, and of the schedule only the cap on steps is left.
    """
    bounded, warm = options.entropy_bound is not None, options.temperature
    shares = [1.0] * (steps - 1) + [0.0] if bounded else masked_shares(options.schedule, steps)
    if options.sampler == "annealed":
        return [Step(share, warm * (1 - s / steps), exact=False) for s, share in enumerate(shares)]
    if options.sampler == "published":
        noise = accumulate((1 - (s + 1) / steps for s in range(steps)), mul)
        return [Step(share, warm, warm * scale) for share, scale in zip(shares, noise, strict=True)]
    return [Step(share, warm) for share in shares]


def early_exit(options: DecodeOptions, steps: int) -> Schedule:
    """Return the schedule cut to ``options.iterations`` steps (CEED-VLA, arXiv 2506.13725).

    What is open in the last of them is committed at once, and temperatures fall over the steps that are left.
    """
    whole, cut = schedule_of(options, steps), min(options.iterations or steps, steps)
    if cut == steps:
        return whole
    shares = [*(step.masked for step in whole[: cut - 1]), 0.0]
    return [step._replace(masked=share) for step, share in zip(schedule_of(options, cut), shares, strict=True)]


def schedules(options: DecodeOptions) -> tuple[Schedule, Schedule]:
    """Return the schedules of images and action.

    Without foresight the images have no step; a ``sketch`` ends after the first half of theirs, or the early exit.
    """
    action = early_exit(options, options.action_steps or options.steps)
    if options.foresight == "off":
        return [], action
    if options.foresight == "full":
        return early_exit(options, options.steps), action
    half = math.ceil(options.steps / 2)
    return schedule_of(options, options.steps)[: min(half, options.iterations or half)], action
