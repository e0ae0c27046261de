"""Matrix products of a decoder: with the weights as they are, or with weights of 8 bits in their place.

Three operators here are not public: ``torch._int_mm``, ``torch._scaled_mm`` and ``torch.ops.quantized``, which torch
has no public name for. ``tests/model/test_products.py`` says with which version they were seen to work.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

log = logging.getLogger(__name__)

LARGEST = {"int8": 127.0, "fp8": 448.0}
FEW = 32  # rows that CUDA's integer product gets at least: it refuses 16 and fewer


class Matrix(nn.Linear):
    """``y = x W^T`` for flat ``x`` ``[n, in]``; ``weight`` ``[out, in]``, without values until somebody gives them."""

    def __init__(self, out: int, width: int, device: torch.device | None, dtype: torch.dtype | None) -> None:
        super().__init__(width, out, bias=False, device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        """Leave the weight as it was allocated: the decoder or a file fills it."""

    def product(self, x: Tensor, place: Tensor | None = None) -> Tensor:
        """Return ``[n, out]``; in ``place`` where that is given."""
        return F.linear(x, self.weight) if place is None else torch.mm(x, self.weight.t(), out=place)

    def added(self, residual: Tensor, x: Tensor) -> Tensor:
        """Return ``residual + x W^T``; without gradients the residual is overwritten."""
        if torch.is_grad_enabled():  # apart: under autocast the sum keeps the residual's precision
            return residual + F.linear(x, self.weight)
        return residual.addmm_(x, self.weight.t())


class Rounded(nn.Module):
    """The same of 8-bit weights, one scale per output channel; activations are rounded per call, one scale per row.

    ``int8`` on a CPU has one scale per call and the kernel that scales its sums on the fly, where torch still has it.
    """

    values: Tensor | None
    scale: Tensor

    def __init__(self, weight: Tensor, kind: str) -> None:
        super().__init__()
        self.kind = kind
        weight = weight.detach()
        scale = weight.abs().amax(1).float().clamp_min_(1e-8).div_(LARGEST[kind])
        self._packed: Any = None
        values = None
        if kind == "int8" and weight.device.type == "cpu":
            try:
                self._packed = _packed(weight.float(), scale)
            except (AttributeError, RuntimeError) as error:
                log.info("int8: %s; the plain integer product is taken", " ".join(str(error).split())[:100])
        if self._packed is None:
            scaled = weight / scale[:, None]
            values = scaled.round_().to(torch.int8) if kind == "int8" else scaled.to(torch.float8_e4m3fn)
        self.register_buffer("values", values, persistent=False)
        self.register_buffer("scale", scale, persistent=False)

    def product(self, x: Tensor, place: Tensor | None = None) -> Tensor:
        """See :meth:`Matrix.product`; ``place`` is left unused."""
        if self.values is None:
            # Without VNNI instructions sums of two products would overflow 16 bits: one bit less then.
            narrow = not torch.cpu._is_vnni_supported()
            return torch.ops.quantized.linear_dynamic(x.float(), self._packed, narrow).to(x.dtype)
        return (_int8 if self.kind == "int8" else _fp8)(x, self.values, self.scale)

    def added(self, residual: Tensor, x: Tensor) -> Tensor:
        """See :meth:`Matrix.added`."""
        return residual.add_(self.product(x))


def _packed(weight: Tensor, scale: Tensor) -> Any:
    """Return 8-bit weights in the order that the CPU's kernel reads."""
    zero = torch.zeros(len(scale), dtype=torch.long)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*quantize_per_channel.*", category=UserWarning)
        rounded = torch.quantize_per_channel(weight, scale.double(), zero, 0, torch.qint8)
    return torch.ops.quantized.linear_prepack(rounded, None)


def logits(states: Tensor, head: Tensor, out: Tensor | None = None) -> Tensor:
    """``states [n, H] @ head [N, H]`` as float32 ``[n, N]``, in ``out`` if given; halves are summed in float32."""
    if states.dtype == torch.float32:
        return torch.mm(states, head.t(), out=out)
    if states.device.type == "cuda":
        return torch.mm(states, head.t(), out_dtype=torch.float32, **({} if out is None else {"out": out}))
    found = torch.mm(states, head.t())  # a CPU has no product of halves with float32 sums to give
    return found.float() if out is None else out.copy_(found)


def _scaled_rows(x: Tensor, largest: float) -> tuple[Tensor, Tensor]:
    scale = x.float().abs().amax(1, keepdim=True).clamp_min_(1e-8).div_(largest)
    return x / scale, scale


def _int8(x: Tensor, values: Tensor, scale: Tensor) -> Tensor:
    n = len(x)
    scaled, row = _scaled_rows(F.pad(x, (0, 0, 0, max(FEW - n, 0))), 127)
    sums = torch._int_mm(scaled.round_().to(torch.int8), values.t())[:n]
    return sums.float().mul_(row[:n]).mul_(scale).to(x.dtype)


def _fp8(x: Tensor, values: Tensor, scale: Tensor) -> Tensor:
    scaled, row = _scaled_rows(x, 448)
    found = torch._scaled_mm(
        scaled.to(torch.float8_e4m3fn), values.t(), scale_a=row, scale_b=scale[None], out_dtype=torch.bfloat16
    )
    return found.to(x.dtype)
