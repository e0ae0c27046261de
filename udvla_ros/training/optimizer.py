"""Optimisers, learning-rate schedule and the averaged weights that are shipped."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from udvla_ros.model.backbone import Backbone
from udvla_ros.model.decoder import published

ADAM_BETAS = (0.9, 0.95)  # the released recipe


def build_optimizers(
    model: Backbone, name: str, lr: float, weight_decay: float
) -> list[torch.optim.Optimizer]:
    """Return the optimisers of a run.

    ``adamw`` is the released recipe. ``muon`` gives the decoder's matrices orthogonalised updates of
    AdamW's magnitude and leaves embeddings, heads and norms to AdamW; a small model learns in fewer samples.
    """
    matrices: list[tuple[nn.Parameter, list[int]]] = []
    if name == "muon":
        rows = {ours: [n for _, n in parts] for ours, parts in published(model.shape)}
        layers = model.decoder.named_parameters()
        matrices = [(p, rows[n]) for n, p in layers if p.ndim == 2 and n.startswith("layers.")]
    chosen = {id(p) for p, _ in matrices}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in chosen]
    decayed = [p for p in rest if p.ndim >= 2]
    plain = [p for p in rest if p.ndim < 2]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    adam = torch.optim.AdamW(groups, lr=lr, betas=ADAM_BETAS)
    if name != "muon":
        return [adam]
    return [adam, JoinedMuon(matrices, lr, weight_decay)]


class JoinedMuon(torch.optim.Muon):
    """Muon that orthogonalises query, key and value, gate and up each by itself, though they are stored as one matrix.

    Its parameters are those rows of the matrices. Divided ones (DTensors) are taken whole.
    """

    def __init__(self, matrices: list[tuple[nn.Parameter, list[int]]], lr: float, weight_decay: float) -> None:
        """``matrices``: each with the numbers of rows that belong together."""
        self._wholes: list[tuple[nn.Parameter, list[nn.Parameter], list[int]]] = []
        for whole, rows in matrices:
            split = len(rows) > 1 and not isinstance(whole, DTensor)
            parts = [nn.Parameter(part) for part in whole.detach().split(rows)] if split else [whole]
            self._wholes.append((whole, parts, rows))
        every = [part for _, parts, _ in self._wholes for part in parts]
        super().__init__(every, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")

    def step(self, closure: Any = None) -> Any:
        """Step on the gradients of the whole matrices."""
        for whole, parts, rows in self._wholes:
            if parts[0] is not whole and whole.grad is not None:
                for part, grad in zip(parts, whole.grad.split(rows), strict=True):
                    part.grad = grad
        return super().step(closure)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, of the whole matrices too."""
        super().zero_grad(set_to_none)
        for whole, *_ in self._wholes:
            whole.grad = None


def learning_rate(progress: float, step: int, peak: float, warmup: int, floor: float) -> float:
    """Linear warm-up over ``warmup`` steps, then a cosine from ``peak`` to ``floor`` at progress 1."""
    rise = min(1.0, (step + 1) / max(warmup, 1))
    fall = floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return rise * fall


class Average:
    """Exponential moving average of what of a model is trained; young averages forget faster."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: p.detach().clone() for name, p in trained(model)}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move towards the model's present parameters."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        present = [p.detach() for _, p in trained(model)]
        torch._foreach_lerp_(list(self.values.values()), present, weight)

    @torch.no_grad()
    def swap(self, model: nn.Module) -> None:
        """Exchange the average and the model's parameters (call twice to restore)."""
        for name, parameter in trained(model):
            kept: Tensor = parameter.detach().clone()  # in place: where weights are divided, others know their memory
            parameter.copy_(self.values[name])
            self.values[name].copy_(kept)


def trained(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return the parameters that are, by name."""
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
