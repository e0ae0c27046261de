"""How a bundle is run on this machine: number type, weights, compiler, threads. None of it changes what a bundle is.

``float32`` weights with everything else off give the reference. Lower precision and ``int8`` change logits by
rounding, so that now and then another token wins; ``compile`` changes only the order of sums.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from udvla_ros.errors import ConfigError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
WEIGHTS = ("float", "int8", "fp8")
COMPILE = ("off", "auto", "on")


@dataclass(frozen=True)
class RuntimeOptions:
    """What to run with.

    Attributes:
        dtype: ``float32``, ``bfloat16`` or ``float16``: of the decoder's weights, activations and cache; ``auto`` is
            bfloat16 on a GPU and float32 on a CPU. Logits and probabilities are always float32, and so is the vision
            tokeniser.
        weights: ``float`` as stored; ``int8`` or ``fp8``: those of the layers rounded to 8 bits with a scale per output
            channel, in place of the stored ones (such a bundle cannot be saved), and activations rounded per call.
        compile: ``off``; ``on``: forwards go through torch.compile; ``auto``: both are timed at warm-up and the faster
            one stays. Where it cannot be compiled, it runs without, with a word.
        graphs: on a GPU, record each forward as a CUDA graph, compiled or not.
        tf32: on a GPU, let products and convolutions of float32 round their factors to 10 bits of mantissa; off, they
            are what a CPU's are. It is set for the whole process.
        threads: CPU threads of torch, for the whole process; ``None`` leaves them as they are.
    """

    dtype: str = "auto"
    weights: str = "float"
    compile: str = "off"
    graphs: bool = True
    tf32: bool = False
    threads: int | None = None

    def __post_init__(self) -> None:
        for name, value, known in (
            ("dtype", self.dtype, ("auto", *DTYPES)),
            ("weights", self.weights, WEIGHTS),
            ("compile", self.compile, COMPILE),
        ):
            if value not in known:
                raise ConfigError(f"{name} is '{value}'; known: {', '.join(known)}")
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads is {self.threads}; it must be at least 1, or None for torch's own choice")

    def on(self, device: torch.device) -> RuntimeOptions:
        """Return the options with ``auto`` decided for a device, and set what concerns the whole process."""
        if self.threads:
            torch.set_num_threads(self.threads)
        if device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.tf32
        chosen = "bfloat16" if device.type == "cuda" else "float32"
        return replace(self, dtype=chosen) if self.dtype == "auto" else self
