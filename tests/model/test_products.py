"""Products with 8-bit weights, logits in float32, and the private operators that they stand on.

Seen to work with torch 2.13.0: ``torch._int_mm``, ``torch._scaled_mm`` by rows, ``torch.ops.quantized.linear_dynamic``,
``linear_prepack``, ``torch.cpu._is_vnni_supported``.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from udvla_ros.model import products
from udvla_ros.model.products import Rounded, logits


def drawn(rows: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, 64, generator=generator), torch.randn(48, 64, generator=generator)


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found.float() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("rows", [1, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["packed", "int8", "fp8"])
def test_rounded_products_are_near_the_float_one(rows, dtype, kind, monkeypatch):
    x, weight = drawn(rows)
    if kind == "int8":  # what a GPU runs, and a CPU whose torch has lost the packed one
        monkeypatch.setattr(products, "_packed", lambda *_: (_ for _ in ()).throw(AttributeError("gone")))
    made = Rounded(weight.to(dtype), "fp8" if kind == "fp8" else "int8")
    assert (made.values is None) == (kind == "packed")  # nothing is stored twice
    limit = 0.06 if kind == "fp8" else 0.03
    wanted = torch.nn.functional.linear(x, weight)
    found = made.product(x.to(dtype))
    assert found.dtype == dtype
    assert 1e-4 < error(found, wanted) < limit
    residual = torch.ones(rows, 48, dtype=dtype)
    assert error(made.added(residual.clone(), x.to(dtype)), wanted + 1) < limit


def test_rounded_weights_hold_a_quarter_of_the_memory():
    made = Rounded(drawn(1)[1], "fp8")
    assert made.values is not None
    assert made.values.nbytes + made.scale.nbytes == 48 * 64 + 48 * 4
    assert not list(made.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_are_float32_wherever_they_are_written(dtype):
    x, head = (part.to(dtype) for part in drawn(5))
    wanted = x.float() @ head.float().t()
    place = torch.empty(5, 48)
    for found in (logits(x, head), logits(x, head, place)):
        assert found.dtype == torch.float32
        assert error(found, wanted) < (1e-6 if dtype == torch.float32 else 5e-3)
    assert torch.equal(place, logits(x, head))
