"""Decoders by name."""

from __future__ import annotations

from udvla_ros.decoding.autoregressive import Autoregressive
from udvla_ros.decoding.base import TokenDecoder
from udvla_ros.decoding.independent import Independent
from udvla_ros.decoding.interface import Decoder
from udvla_ros.decoding.jacobi import Jacobi
from udvla_ros.decoding.jd3p import JD3P
from udvla_ros.errors import ConfigError
from udvla_ros.model.checkpoint import Bundle

DECODERS: dict[str, type[TokenDecoder]] = {
    decoder.name: decoder for decoder in (JD3P, Independent, Autoregressive, Jacobi)
}


def make_decoder(name: str, bundle: Bundle) -> Decoder:
    """Return the decoder of that name.

    Raises:
        ConfigError: there is no such decoder, or the bundle's attention is not the one it needs.
    """
    if name not in DECODERS:
        raise ConfigError(f"unknown decoder '{name}'; known: {', '.join(DECODERS)}")
    return DECODERS[name](bundle.backbone, bundle.fast.lattice(bundle.config.layout.action_slots))
