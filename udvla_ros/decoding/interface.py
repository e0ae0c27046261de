"""What every decoder takes and returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from udvla_ros.decoding.schedule import SCHEDULES
from udvla_ros.errors import ConfigError
from udvla_ros.tokens.layout import Prefix

FORESIGHTS = ("full", "sketch", "off")
STARTS = ("mask", "random", "current")


@dataclass(frozen=True)
class DecodeOptions:
    """The knobs a user turns, per call.

    Attributes:
        decoder: name of the decoder.
        steps: denoising steps of the future images (T in the paper).
        action_steps: denoising steps of the actions; ``None`` is ``steps``. They are the last ones of the
            run, so that actions are settled on images that have taken shape.
        schedule: ``paper`` or ``public``, see :mod:`udvla_ros.decoding.schedule`.
        foresight: ``full``; ``sketch``: image tokens stop after the first half of their schedule, and the
            action watches what is there; ``off``: no future is imagined (a trained mode).
        iterations: early exit (CEED-VLA): at most that many forwards per modality, and what is still open
            then is committed as it stands. ``None``: the whole schedule, or until Jacobi's fixed point.
        temperature: of the Gumbel-max samples; denoising anneals it to zero over the steps, the decoders of
            the causal model keep it. 0 is greedy, which seeks the mode: of many ways to move and one way to
            stay, it stays. Policies are run at 1.
        confidence_threshold: tokens at least this probable are committed ahead of the schedule.
        use_cache: keep the prefix in a key/value cache (where the attention kind makes that exact).
        well_formed: commit only action codes of a sequence whose expanded lengths fill the chunk exactly.
        start: Jacobi's first guess: ``mask``; ``random`` codes; ``current``: images as they are now.
        stop_when_ready: end as soon as EOA and every action code are committed. The action is what it would
            be; image slots that are open then stay open, as in a sketch.
        refresh: keep the keys and values of committed tokens from step to step and run only the open ones
            (dKV-Cache, Fast-dLLM); every ``refresh`` steps all are run again. 1 is exact, more is approximate,
            ``None`` is off.
        remask: after each step but the last, this share of the committed tokens, the least confident ones,
            is opened again. Revises early mistakes; approximate by nature, 0 is off.
        warm_start: share of the schedule that is skipped when the caller has a :class:`Guess`: the guess fills
            as many slots as would be committed by then, drawn by the seed. Approximate, 0 is off.

    ``steps``, ``action_steps``, ``schedule``, ``confidence_threshold`` and the last four concern denoising
    alone, and ``autoregressive`` has no ``iterations``: it takes one forward per token.
    """

    decoder: str = "jd3p"
    steps: int = 8
    action_steps: int | None = None
    foresight: str = "full"
    schedule: str = "public"
    temperature: float = 0.0
    confidence_threshold: float | None = None
    use_cache: bool = True
    well_formed: bool = True
    iterations: int | None = None
    start: str = "mask"
    stop_when_ready: bool = False
    refresh: int | None = None
    remask: float = 0.0
    warm_start: float = 0.0

    def __post_init__(self) -> None:
        for name in ("steps", "action_steps"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= 256:
                raise ConfigError(f"{name} is {value}; it must lie between 1 and 256")
        if self.foresight not in FORESIGHTS:
            raise ConfigError(f"foresight is '{self.foresight}'; known: {', '.join(FORESIGHTS)}")
        if self.schedule not in SCHEDULES:
            raise ConfigError(f"unknown schedule '{self.schedule}'; known: {', '.join(SCHEDULES)}")
        if self.start not in STARTS:
            raise ConfigError(f"start is '{self.start}'; known: {', '.join(STARTS)}")
        if self.iterations is not None and self.iterations < 1:
            raise ConfigError(f"iterations is {self.iterations}; it must be at least 1, or None for no limit")
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError(f"temperature is {self.temperature}; it must be finite and not negative")
        if self.confidence_threshold is not None and not 0 < self.confidence_threshold <= 1:
            raise ConfigError(f"confidence_threshold is {self.confidence_threshold}; it must lie in (0, 1]")
        if self.refresh is not None and self.refresh < 1:
            raise ConfigError(f"refresh is {self.refresh}; it must be at least 1, or None for off")
        for name in ("remask", "warm_start"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must lie in [0, 1)")


@dataclass(frozen=True)
class Guess:
    """What the last chunk expected of this one, for ``warm_start``.

    ``visual`` ``[B, V]``: VQ codes of the future views, -1 where there is no guess; ``actions``: FAST codes per
    sample without EOA, a well-formed sequence (see :func:`udvla_ros.decoding.guess.remaining`), or ``None``.
    """

    visual: np.ndarray
    actions: list[list[int]] | None = None


@dataclass(frozen=True)
class Foreseen:
    """What the first denoising step holds likely at each image slot, before any other slot is drawn.

    ``codes`` ``[B, V, k]``: the most probable VQ codes; ``log_probs`` ``[B, V, k]`` theirs, ``rest`` ``[B, V]`` that of
    each other code (nats).
    """

    codes: np.ndarray
    log_probs: np.ndarray
    rest: np.ndarray

    def of(self, sample: int) -> Foreseen:
        """Return what concerns one sample, without the first axis."""
        return Foreseen(self.codes[sample], self.log_probs[sample], self.rest[sample])


@dataclass(frozen=True)
class StepStatistics:
    """One forward: tokens run (prefix included where it is not cached), tokens committed, mean confidence."""

    forward_tokens: int
    visual_committed: int
    visual_confidence: float
    action_committed: int
    action_confidence: float
    seconds: float


@dataclass
class Decoded:
    """Tokens of one call.

    ``visual`` ``[B, V]``: VQ codes of all future views (-1 with ``foresight: off``, and in the slots that a
    ``sketch`` leaves open); ``actions``: FAST codes per sample, without EOA; ``prefilled``: whether one more
    forward filled the cache first; ``converged``: whether Jacobi reached its fixed point, ``None`` elsewhere;
    ``foreseen``: ``None`` where the images are not denoised from nothing.
    """

    visual: np.ndarray
    actions: list[list[int]]
    timings_ms: dict[str, float]
    steps: list[StepStatistics] = field(default_factory=list)
    prefilled: bool = True
    converged: bool | None = None
    foreseen: Foreseen | None = None

    @property
    def forwards(self) -> int:
        """Forward passes of the decoder, prefill included."""
        return len(self.steps) + int(self.prefilled)


class Decoder(Protocol):
    """A decoder is a callable over a batch of prefixes."""

    def __call__(self, prefix: Prefix, options: DecodeOptions, seed: int, guess: Guess | None = None) -> Decoded:
        """Generate the suffix. The same prefix, options, seed and guess give the same tokens."""
        ...
