"""Low-rank adapters (LoRA, arXiv 2106.09685) beside the decoder's matrices, by peft; export folds them in.

Query, key and value are one matrix here, gate and up another, and each has one adapter: at rank r it is what adapters
of rank r on its parts would be if they shared their first factor. Embedding, head and norms stay as they are.
"""

from __future__ import annotations

from torch import Tensor, nn

from udvla_ros.errors import ConfigError
from udvla_ros.model.backbone import Backbone
from udvla_ros.model.decoder import Decoder
from udvla_ros.training.sharding import whole

MATRICES = ("qkv", "out", "gate_up", "down")
ADAPTER = "default"


class Adapted(nn.Module):
    """A matrix with peft's adapter beside it, to be called as :class:`~udvla_ros.model.products.Matrix` is."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def product(self, x: Tensor, place: Tensor | None = None) -> Tensor:
        """See :meth:`Matrix.product`; ``place`` is left unused."""
        return self.layer(x)

    def added(self, residual: Tensor, x: Tensor) -> Tensor:
        """See :meth:`Matrix.added`."""
        return residual + self.layer(x)

    def merged(self) -> Tensor:
        """Return the weight with the adapter in it."""
        return self.layer.get_base_layer().weight.detach() + self.layer.get_delta_weight(ADAPTER).detach()


def adapt(decoder: Decoder, rank: int, alpha: int, dropout: float) -> None:
    """Freeze the decoder and give its matrices adapters, which at first change nothing. Raises ConfigError."""
    if decoder.rounded:
        raise ConfigError("adapters need weights as they are: load the bundle with weights: float")
    from peft import LoraConfig, inject_adapter_in_model  # seconds, for those who want them

    decoder.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=list(MATRICES))
    inject_adapter_in_model(config, decoder, ADAPTER)
    for layer in decoder.layers:
        for name in MATRICES:
            setattr(layer, name, Adapted(getattr(layer, name)))


def plain_state(model: Backbone) -> dict[str, Tensor]:
    """Return the weights under a plain backbone's names: divided ones gathered (all processes call it), adapters in."""
    state = {name: value.detach() for name, value in model.state_dict().items() if ".layer." not in name}
    state |= {f"{n}.weight": module.merged() for n, module in model.named_modules() if isinstance(module, Adapted)}
    return whole(state)
