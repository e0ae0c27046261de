"""Decoders by name."""

from __future__ import annotations

from collections.abc import Callable

from udvla_ros.decoding.interface import Decoder
from udvla_ros.decoding.jd3p import JD3P
from udvla_ros.errors import ConfigError
from udvla_ros.model.checkpoint import Bundle


def _jd3p(bundle: Bundle) -> Decoder:
    return JD3P(bundle.backbone, bundle.fast.lattice(bundle.config.layout.action_slots))


DECODERS: dict[str, Callable[[Bundle], Decoder]] = {"jd3p": _jd3p}


def make_decoder(name: str, bundle: Bundle) -> Decoder:
    """Return the decoder of that name. Raises ConfigError listing the known ones."""
    if name not in DECODERS:
        raise ConfigError(f"unknown decoder '{name}'; known: {', '.join(DECODERS)}")
    return DECODERS[name](bundle)
