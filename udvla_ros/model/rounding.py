"""Linear layers as functions: with the weights as they are, or rounded to 8 bits."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

log = logging.getLogger(__name__)

Linear = Callable[..., Tensor]  # of x, and of a place for the result, which may be left unused


def plain_linear(weight: Tensor, bias: Tensor | None) -> Linear:
    """Return a linear layer of these weights."""

    def product(x: Tensor, place: Tensor | None = None) -> Tensor:
        if place is None or bias is not None:
            return F.linear(x, weight, bias)
        return torch.mm(x, weight.t(), out=place)

    return product


def rounded_linear(weight: Tensor, bias: Tensor | None) -> Linear:
    """Return a linear layer of 8-bit weights, one scale per output channel; activations are rounded per call.

    On a CPU the product that scales its sums on the fly is taken where torch still has it, else the plain one.
    """
    values = weight.detach().float()
    scale = values.abs().amax(1).clamp_min(1e-8) / 127
    if weight.device.type == "cpu":
        try:
            return _packed(values, scale, bias)
        except (AttributeError, RuntimeError) as error:
            log.info("int8: %s; the plain integer product is taken", " ".join(str(error).split())[:100])
    return _integer((values / scale[:, None]).round().to(torch.int8), scale, bias)


def _packed(values: Tensor, scale: Tensor, bias: Tensor | None) -> Linear:
    """Activations with one scale per call, the weights in the order that the CPU's kernel reads."""
    zero = torch.zeros(len(scale), dtype=torch.long)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*quantize_per_channel.*", category=UserWarning)
        rounded = torch.quantize_per_channel(values, scale.double(), zero, 0, torch.qint8)
    packed = torch.ops.quantized.linear_prepack(rounded, None if bias is None else bias.float())
    # Without VNNI instructions sums of two products would overflow 16 bits: one bit less then.
    narrow = not torch.cpu._is_vnni_supported()

    def product(x: Tensor, _: Tensor | None = None) -> Tensor:
        return torch.ops.quantized.linear_dynamic(x.float(), packed, narrow).to(x.dtype)

    return product


def _integer(rounded: Tensor, scale: Tensor, bias: Tensor | None) -> Linear:
    """Activations with one scale per row, and one plain integer product; CUDA's wants more than 16 rows."""
    turned = rounded.t()

    def product(x: Tensor, _: Tensor | None = None) -> Tensor:
        row = x.float().abs().amax(1, keepdim=True).clamp_min_(1e-8).div_(127)
        if x.device.type == "cuda" and len(x) <= 16:
            y = F.linear(x.float(), rounded.float()).mul_(scale)
        else:
            y = torch._int_mm((x / row).round_().to(torch.int8), turned).float().mul_(row).mul_(scale)
        return (y if bias is None else y + bias).to(x.dtype)

    return product
