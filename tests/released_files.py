"""Checkpoints in the released layout with random weights: what lies in the folders that a lab downloads."""

from __future__ import annotations

import base64
import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import Emu3ForCausalLM, Emu3TextConfig, Emu3VQVAE

from udvla_ros.released.convert import Request
from udvla_ros.released.text import _letters
from udvla_ros.tokens.action import FastTokenizer
from udvla_ros.tokens.layout import Vocabulary
from udvla_ros.tokens.normalize import QuantileNormalizer
from udvla_ros.tokens.vision import small_config

SHARED = Path(__file__).resolve().parents[2] / "shared" / "released"
TEXT, VISUAL = 900, 64
SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 1e6,
    "hidden_act": "silu", "initializer_range": 0.3, "attention_dropout": 0.1,
}  # fmt: skip


def published_files() -> Path:
    """Return the folder of the published tokenisers, or skip."""
    for folder in (SHARED, *(p / "shared" / "released" for p in Path(__file__).parents)):
        if folder.is_dir():
            return folder
    pytest.skip("the published FAST files (../shared/released) are not here")


@functools.cache
def fast() -> FastTokenizer:
    """A FAST tokeniser of our own: 10 steps of 7 numbers."""
    rng = np.random.default_rng(0)
    start, slope = rng.uniform(-0.6, 0.6, (2, 400, 1, 7))
    chunks = np.clip(start + slope * np.linspace(0, 1, 10)[:, None], -1, 1)
    ends = np.concatenate([np.ones((1, 10, 7)), -np.ones((1, 10, 7))])
    return FastTokenizer.fit(np.concatenate([chunks, ends]), 256, scale=6)


@functools.cache
def vocabulary() -> Vocabulary:
    """The published order of ids, small: actions count down over the last text ids, visual tokens come last."""
    names = ("pad", "boa", "eoa", "eol", "eof", "mask", "bos", "eos", "img", "boi", "eoi")
    markers = {name: TEXT + offset for offset, name in enumerate(names)}
    first = TEXT + len(names)
    return Vocabulary(
        size=first + VISUAL, text_size=TEXT, visual_first=first, visual_size=VISUAL, action_first=TEXT - 1,
        action_size=fast().vocab_size, action_step=-1, **markers,
    )  # fmt: skip


@dataclass(frozen=True)
class Released:
    """The folders, and the model whose weights are in them."""

    decoder: Path
    vision: Path
    fast: Path
    norm: Path
    model: Emu3ForCausalLM
    eyes: Emu3VQVAE

    def request(self, out: Path, **changes) -> Request:
        """Return what converts them."""
        given = {"vocabulary": vocabulary(), **changes}
        folders = {name: given.pop(name, getattr(self, name)) for name in ("vision", "fast", "norm")}
        return Request(given.pop("decoder", self.decoder), out=out, **folders, **given)


def write(folder: Path, vocabulary: Vocabulary | None = None, codes: int = VISUAL, form: str = "shards") -> Released:
    """Write all four folders; ``form``: shards (safetensors), bin, or one file."""
    vocabulary = vocabulary or globals()["vocabulary"]()
    torch.manual_seed(0)
    ids = {
        "vocab_size": vocabulary.size,
        "pad_token_id": vocabulary.pad,
        "bos_token_id": vocabulary.bos,
        "eos_token_id": vocabulary.eos,
    }
    model = Emu3ForCausalLM(Emu3TextConfig(**SIZES, **ids, tie_word_embeddings=False)).eval()
    write_decoder(folder / "decoder", model, vocabulary, form)
    config = small_config(codes=codes, width=4)
    config.temporal_downsample_factor = 4
    eyes = Emu3VQVAE(config).eval()
    write_vision(folder / "vision", eyes)
    fast().save(folder / "fast")
    reach = np.array([0.9] * 6 + [1.0])
    QuantileNormalizer(-reach, reach).save(folder / "norm", "libero")
    return Released(folder / "decoder", folder / "vision", folder / "fast", folder / "norm", model, eyes)


def write_decoder(folder: Path, model: Emu3ForCausalLM, vocabulary: Vocabulary, form: str) -> None:
    """``config.json`` of an Emu3MoE, its weights, ``emu3.tiktoken`` and the list of visual tokens."""
    folder.mkdir(parents=True)
    ids = {
        f"{name}_token_id": getattr(vocabulary, name)
        for name in ("pad", "bos", "eos", "img", "boi", "eoi", "eol", "eof")
    }
    values = {
        "architectures": ["Emu3MoE"],
        "model_type": "Emu3",
        "vocab_size": vocabulary.size,
        "action_experts": False,
    }
    (folder / "config.json").write_text(json.dumps({**values, **SIZES, **ids}))
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    if form == "one":
        save_file(state, folder / "model.safetensors")
    else:
        names = sorted(state)
        parts = names[::2], names[1::2]
        suffix, stem = ("safetensors", "model") if form == "shards" else ("bin", "pytorch_model")
        where = {}
        for number, part in enumerate(parts, 1):
            name = f"{stem}-0000{number}-of-00002.{suffix}"
            values = {key: state[key] for key in part}
            save_file(values, folder / name) if form == "shards" else torch.save(values, folder / name)
            where |= dict.fromkeys(part, name)
        index = folder / f"{stem if form == 'shards' else 'pytorch_model'}.{suffix}.index.json"
        index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    if vocabulary.text_size == TEXT:
        write_ranks(folder / "emu3.tiktoken", vocabulary.text_size)
    lines = [f"<|visual token {number:06d}|>" for number in range(vocabulary.visual_size)]
    (folder / "emu3_vision_tokens.txt").write_text("\n".join(lines) + "\n")


def write_ranks(path: Path, size: int) -> None:
    """A small tiktoken vocabulary: the bytes in their published order, then what sentences are made of, then noise."""
    tokens = [bytes([byte]) for byte in _letters()]
    for word in (" pick", " up", " the", " black", " bowl", " red", " cube", "pick", "push", " to", " left"):
        raw = word.encode()
        tokens += [raw[:end] for end in range(2, len(raw) + 1) if raw[:end] not in tokens]
    number = 0
    while len(tokens) < size:
        token = bytes([0xF8 + number // 200, number % 200])
        number += 1
        tokens.append(token)
    path.write_bytes(b"".join(base64.b64encode(t) + b" %d\n" % rank for rank, t in enumerate(tokens)))


def published_vision_name(name: str) -> str:
    """transformers' name of a vision weight -> that of the original file."""
    name = re.sub(r"\.(q|k|v)_proj\.", r".\1.", name).replace(".out_proj.", ".proj_out.")
    name = name.replace(".middle_block.attn_norm.", ".mid.attn_1.norm.").replace(".middle_block.", ".mid.")
    name = re.sub(r"\.attn_norms\.(\d+)\.", r".attn.\1.norm.", name)
    return name.replace(".down_block.down.", ".down.").replace(".up_block.up.", ".up.")


def write_vision(folder: Path, eyes: Emu3VQVAE) -> None:
    """The vision tokeniser as Emu3 published it: other names, 1 x 1 convolutions where transformers has matrices."""
    folder.mkdir(parents=True)
    c = eyes.config
    values = {
        "model_type": "Emu3VisionVQ", "ch": c.base_channels, "ch_mult": c.channel_multiplier, "embed_dim": c.embed_dim,
        "num_res_blocks": c.num_res_blocks, "attn_resolutions": c.attn_resolutions, "z_channels": c.latent_channels,
        "double_z": c.double_latent, "codebook_size": c.codebook_size, "in_channels": 3, "out_channels": 3,
        "temporal_downsample_factor": c.temporal_downsample_factor, "dropout": 0.0,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(values))
    state = {}
    for name, value in eyes.state_dict().items():
        matrix = re.search(r"(q|k|v|out)_proj\.weight$", name)
        state[published_vision_name(name)] = (value[:, :, None, None] if matrix else value).contiguous()
    save_file(state, folder / "model.safetensors")
