"""What every decoder takes and returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from udvla_ros.errors import ConfigError
from udvla_ros.tokens.layout import Prefix

CHOICES = {
    "foresight": ("full", "sketch", "off"),
    "schedule": ("public", "paper"),
    "sampler": ("exact", "annealed", "published"),
    "start": ("mask", "random", "current"),
}
MOST_SAMPLES = 16


@dataclass(frozen=True)
class DecodeOptions:
    """The knobs a user turns, per call.

    Attributes:
        decoder: name of the decoder.
        steps: denoising steps of the future images (T in the paper).
        action_steps: denoising steps of the actions; ``None`` is ``steps``. They are the last ones of the
            run, so that actions are settled on images that have taken shape.
        schedule: ``paper`` or ``public``, see :mod:`udvla_ros.decoding.schedule`.
        sampler: what is drawn in a denoising step, and who of it is committed. ``exact``: images and action sequences
            from the model's own distribution at ``temperature``, the most confident first. ``annealed``: at a
            temperature that falls to 0 over the modality's steps, the action as the best sequence under Gumbel noise.
            ``published``: drawn as in ``exact``, committed by one ranking over both modalities with annealed noise.
        foresight: ``full``; ``sketch``: image tokens stop after the first half of their schedule, and the
            action watches what is there; ``off``: no future is imagined (a trained mode).
        iterations: early exit (CEED-VLA): at most that many forwards per modality, and what is still open
            then is committed as it stands. ``None``: the whole schedule, or until Jacobi's fixed point.
        temperature: of the tokens that are drawn, in the first step (``annealed``) or in all. 0 is greedy, which seeks
            the mode: of many ways to move and one way to stay, it stays. Policies are run at 1.
        confidence_threshold: tokens at least this probable are committed ahead of the schedule.
        entropy_bound: nats, in place of the schedule (arXiv 2505.24857): each step commits the surest tokens whose
            entropies but the largest add up to at most this; ``steps`` and ``action_steps`` are caps.
        use_cache: keep the prefix in a key/value cache (where the attention kind makes that exact).
        start: Jacobi's first guess: ``mask``; ``random`` codes; ``current``: images as they are now.
        stop_when_ready: end as soon as EOA and every action code are committed. The action is what it would
            be; image slots that are open then stay open, as in a sketch.
        remask: after each step but the last, this share of the committed tokens, the least confident ones,
            is opened again. Revises early mistakes; approximate by nature, 0 is off.
        masked_frames: of ``published``: size headers, IMG and EOF of the future images begin as MASK and are ranked,
            counted and committed with the rest; with their known ids, whatever the model would have drawn.
        drawn_behind: of ``published``: slots behind EOA are drawn, ranked, counted and committed too, each by itself.
        samples: chunks drawn of each observation in one batch, of which the policy takes the one that goes on most like
            the plan in force; see :mod:`udvla_ros.policy.coherence`.

    ``steps``, ``action_steps``, ``schedule``, ``sampler``, ``confidence_threshold``, ``entropy_bound``,
    ``stop_when_ready`` and ``remask`` concern denoising alone, and ``autoregressive`` has no ``iterations``: it takes
    one forward per token.
    """

    decoder: str = "jd3p"
    steps: int = 8
    action_steps: int | None = None
    foresight: str = "full"
    schedule: str = "public"
    sampler: str = "annealed"
    temperature: float = 0.0
    confidence_threshold: float | None = None
    entropy_bound: float | None = None
    use_cache: bool = True
    iterations: int | None = None
    start: str = "mask"
    stop_when_ready: bool = False
    remask: float = 0.0
    masked_frames: bool = False
    drawn_behind: bool = False
    samples: int = 1

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} is '{getattr(self, name)}'; known: {', '.join(known)}")
        for name, low, high, sense in (
            ("steps", 1, 256, "between 1 and 256"),
            ("action_steps", 1, 256, "between 1 and 256, or None for as many as steps"),
            ("iterations", 1, 1e9, "at least 1, or None for no limit"),
            ("temperature", 0, 1e9, "finite and not negative"),
            ("confidence_threshold", 1e-12, 1, "in (0, 1], or None for off"),
            ("entropy_bound", 1e-12, 1e9, "finite and above 0, or None for off"),
            ("remask", 0, 1 - 1e-9, "in [0, 1)"),
            ("samples", 1, MOST_SAMPLES, f"between 1 and {MOST_SAMPLES}"),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ConfigError(f"{name} is {value}; it must be {sense}")
        if self.entropy_bound is not None and self.confidence_threshold is not None:
            raise ConfigError("entropy_bound and confidence_threshold both say what is sure enough; give one of them")
        if self.sampler == "published" and self.decoder in ("jd3p", "independent"):
            self._check_joint_ranking()

    def _check_joint_ranking(self) -> None:
        """One ranking over both modalities needs both in every step, and leaves no other say in who is committed."""
        others = {
            "decoder independent": self.decoder == "independent",
            "action_steps other than steps": self.action_steps not in (None, self.steps),
            "foresight sketch": self.foresight == "sketch",
            "confidence_threshold": self.confidence_threshold is not None,
            "entropy_bound": self.entropy_bound is not None,
            "remask": self.remask > 0,
        }
        wrong = [name for name, given in others.items() if given]
        if wrong:
            raise ConfigError(f"sampler published ranks images and action together and knows no {', no '.join(wrong)}")


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

    def __call__(self, prefix: Prefix, options: DecodeOptions, seed: int) -> Decoded:
        """Generate the suffix. The same prefix, options and seed give the same tokens."""
        ...
