"""Parameters, gradients and optimiser state divided over processes (PyTorch FSDP2), for models one device cannot hold.

Each decoder layer is a unit that is gathered when it runs and let go after; embeddings, norm and head are gathered
with the objective itself. It needs a process group (``accelerate launch`` or ``torchrun``) and works on CPUs too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from udvla_ros.errors import ConfigError
from udvla_ros.model.backbone import Backbone


def shard(objective: nn.Module, backbone: Backbone, bf16: bool) -> None:
    """Divide ``objective`` (and the ``backbone`` in it) in place. Build the optimisers afterwards.

    Raises:
        ConfigError: there is one process alone.
    """
    if not torch.distributed.is_initialized():
        raise ConfigError("sharded training needs several processes: start it with accelerate launch or torchrun")
    policy = MixedPrecisionPolicy(torch.bfloat16 if bf16 else None, torch.float32)
    for layer in backbone.decoder.layers:
        fully_shard(layer, mp_policy=policy)
    fully_shard(objective, mp_policy=policy)


def whole(value: Any) -> Any:
    """Return nested state with every divided tensor gathered; all processes have to call it."""
    if isinstance(value, DTensor):
        return value.full_tensor().cpu()
    if isinstance(value, dict):
        return {key: whole(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [whole(entry) for entry in value]
    return value


def divided_like(value: Any, example: Any) -> Any:
    """Return nested state divided as ``example`` is: the inverse of :func:`whole`."""
    if isinstance(example, DTensor) and isinstance(value, Tensor):
        return distribute_tensor(value.to(example.device), example.device_mesh, example.placements)
    if isinstance(example, dict):
        return {key: divided_like(entry, example.get(key)) for key, entry in value.items()}
    if isinstance(example, list):
        return [divided_like(entry, other) for entry, other in zip(value, example, strict=True)]
    return value
