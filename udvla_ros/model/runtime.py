"""How a bundle is run on this machine: number type, weights, compiler, threads. None of it changes what a bundle is.

``float32`` weights with everything else off give the reference. Lower precision and ``int8`` change logits by
rounding, so that now and then another token wins; ``compile`` changes only the order of sums.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from udvla_ros.errors import ConfigError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
WEIGHTS = ("float", "int8")
COMPILE = ("off", "auto", "on")


@dataclass(frozen=True)
class RuntimeOptions:
    """What to run with.

    Attributes:
        dtype: ``float32``, ``bfloat16`` or ``float16``: of the decoder's weights, activations and cache.
            Probabilities are always float32, and so is the vision tokeniser.
        weights: ``float`` as stored, or ``int8``: those of the layers rounded to 8 bits with a scale per output
            channel, and on a CPU the activations with a scale per call (the stored weights stay in memory, for saving).
        compile: ``off``; ``on``: forwards go through torch.compile (and CUDA graphs on a GPU); ``auto``: both are
            timed at warm-up and the faster one stays. Where it cannot be compiled, it runs without, with a word.
        threads: CPU threads of torch; ``None`` leaves them as they are.
    """

    dtype: str = "float32"
    weights: str = "float"
    compile: str = "off"
    threads: int | None = None

    def __post_init__(self) -> None:
        for name, value, known in (
            ("dtype", self.dtype, tuple(DTYPES)),
            ("weights", self.weights, WEIGHTS),
            ("compile", self.compile, COMPILE),
        ):
            if value not in known:
                raise ConfigError(f"{name} is '{value}'; known: {', '.join(known)}")
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads is {self.threads}; it must be at least 1, or None for torch's own choice")
