"""What this machine reaches on plain work: matrix products, memory, and the products of a decoder by themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from udvla_ros.model.replay import fastest
from udvla_ros.proving.bench.cost import Forward, Geometry, products

SIDE = 1536  # of the square matrices
BYTES = 1 << 28


@dataclass(frozen=True)
class Peak:
    """Measured in this run: floating-point operations per second of a square product, bytes per second of a copy."""

    flops: float
    bytes: float


def measured_peak(device: torch.device, dtype: torch.dtype, repeat: int = 5) -> Peak:
    """Return the best of some products and copies with the threads that torch has now."""
    a, b = (torch.randn(SIDE, SIDE, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(a)
    product = fastest(lambda: torch.mm(a, b, out=out), device, repeat)
    source = torch.zeros(BYTES // 4, device=device)
    target = torch.zeros_like(source)
    copied = fastest(lambda: target.copy_(source), device, repeat)
    return Peak(2.0 * SIDE**3 / product, 2.0 * BYTES / copied)


def plain_seconds(
    geometry: Geometry, every: Iterable[Forward], device: torch.device, dtype: torch.dtype, repeat: int = 3
) -> float:
    """Return the seconds that nothing but the matrix products of these forwards takes.

    Each shape is timed once by its fastest run, with operands that other shapes share: no masks, no softmax, no
    sampling, and weights that may stay in the processor's cache.
    """
    counted: Counter[tuple[int, int, int]] = Counter()
    for one in every:
        for n, k, m, times in products(geometry, one):
            counted[n, k, m] += times
    total = 0.0
    for (n, k, m), times in counted.items():
        left = torch.randn(n, k, device=device, dtype=dtype)
        right = torch.randn(m, k, device=device, dtype=dtype)
        out = torch.empty(n, m, device=device, dtype=dtype)
        total += times * fastest(partial(torch.mm, left, right.t(), out=out), device, repeat)
    return total


class PeakMemory:
    """The most memory that the process (or the GPU) held since ``reset``, in MiB; None where nobody counts."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def reset(self) -> None:
        """Count from here."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            return

    def mebibytes(self) -> float | None:
        """Return the peak."""
        if self.device.type == "cuda":
            return round(torch.cuda.max_memory_allocated(self.device) / 2**20, 1)
        try:
            lines = Path("/proc/self/status").read_text().splitlines()
        except OSError:
            return None
        peak = next((line for line in lines if line.startswith("VmHWM")), None)
        return round(int(peak.split()[1]) / 1024, 1) if peak else None
