"""The vision tokeniser as Emu3 published it, under the names that transformers' ``Emu3VQVAE`` has for the same "
"weights."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import Emu3VQVAE, Emu3VQVAEConfig

from udvla_ros.errors import BundleError
from udvla_ros.released.tensors import Stored, read_weights, refuse_pointer, write_safetensors

# In this order: (of the published name, of transformers').
RULES = (
    (r"\.(q|k|v)\.", r".\1_proj."),
    (r"\.proj_out\.", ".out_proj."),
    (r"\.mid\.attn_1\.norm\.", ".mid.attn_norm."),
    (r"\.attn\.(\d+)\.norm\.", r".attn_norms.\1."),
    (r"^(encoder)\.down\.", r"\1.down_block.down."),
    (r"^(decoder)\.up\.", r"\1.up_block.up."),
    (r"^(encoder|decoder)\.mid\.", r"\1.middle_block."),
)
FIELDS = {
    "ch": "base_channels", "ch_mult": "channel_multiplier", "z_channels": "latent_channels",
    "double_z": "double_latent",
}  # fmt: skip
KEPT = (
    "num_res_blocks", "attn_resolutions", "in_channels", "out_channels", "codebook_size", "embed_dim",
    "temporal_downsample_factor",
)  # fmt: skip


def renamed(name: str) -> str:
    """Return transformers' name of a published tensor."""
    for pattern, replacement in RULES:
        name = re.sub(pattern, replacement, name)
    return name


def vision_config(values: dict[str, Any]) -> Emu3VQVAEConfig:
    """Return the configuration of a published ``config.json``, of either kind."""
    if "base_channels" in values:
        return Emu3VQVAEConfig(
            **{k: v for k, v in values.items() if k not in ("architectures", "model_type", "auto_map")}
        )
    named = {new: values[old] for old, new in FIELDS.items() if old in values}
    kept = {name: values[name] for name in KEPT if name in values}
    return Emu3VQVAEConfig(**named, **kept, hidden_size=values["ch"] * values["ch_mult"][-1], num_attention_heads=1)


def convert_vision(source: Path, out: Path, told: Callable[[int], object] = lambda n: None) -> Emu3VQVAEConfig:
    """Write ``config.json`` and ``model.safetensors`` of the vision tokeniser in ``source`` to ``out``.

    Raises:
        BundleError: a file is absent or damaged, or the weights are not those of the configuration.
    """
    path = source / "config.json"
    if not path.is_file():
        raise BundleError(f"{path} is missing: give the folder of the Emu3 vision tokeniser")
    refuse_pointer(path)
    try:
        config = vision_config(json.loads(path.read_text()))
        with torch.device("meta"):
            wanted = {name: tuple(value.shape) for name, value in Emu3VQVAE(config).state_dict().items()}
    except Exception as error:  # the library raises what it likes
        reason = " ".join(str(error).split())
        raise BundleError(f"{path} describes no Emu3 vision tokeniser ({reason}): give the folder of one") from None
    tensors = [_shaped(stored, wanted) for stored in read_weights(source).values()]
    compare(source, tensors, wanted, "vision")
    out.mkdir(parents=True, exist_ok=True)
    write_safetensors(out / "model.safetensors", tensors, told=told)
    config.architectures = ["Emu3VQVAE"]
    config.save_pretrained(out)
    return config


def _shaped(stored: Stored, wanted: dict[str, tuple[int, ...]]) -> Stored:
    """Return a tensor under its new name; a 1 x 1 convolution becomes the matrix that it is."""
    name = renamed(stored.name)
    shape = stored.shape
    if shape[2:] == (1, 1) and wanted.get(name) == shape[:2]:
        shape = shape[:2]
    return Stored(name, shape, stored.dtype, stored.file, stored.blocks)


def compare(folder: Path, tensors: Iterable[Stored], wanted: dict[str, tuple[int, ...]], what: str) -> None:
    """Raise BundleError naming the first tensor that is missing, too many, or of another shape."""
    found = {stored.name: stored for stored in tensors}
    missing = [name for name in wanted if name not in found]
    extra = [name for name in found if name not in wanted]
    if missing:
        raise BundleError(
            f"{folder} lacks {missing[0]} ({len(missing)} {what} weights missing): download all of it, or give "
            "another folder"
        )
    if extra:
        file = found[extra[0]].file
        raise BundleError(
            f"{file} holds {extra[0]} ({len(extra)} {what} weights too many): its config.json is another's"
        )
    for name, shape in wanted.items():
        if found[name].shape != shape:
            raise BundleError(
                f"{found[name].file}: {name} has shape {list(found[name].shape)} where config.json makes it "
                f"{list(shape)}: "
                "take both from one checkpoint"
            )
