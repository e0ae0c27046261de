"""The decoder of a released checkpoint: its ``config.json`` and the names of its weights, of both formats.

``Emu3MoE`` names its tensors as transformers' ``Emu3ForCausalLM`` does, and so does a bundle. A repository in
transformers' own format (``Emu3ForConditionalGeneration``) puts the same ones under ``text_model`` and carries the
vision tokeniser beside them.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from udvla_ros.errors import BundleError
from udvla_ros.released.tensors import Stored, refuse_pointer
from udvla_ros.tokens.layout import Vocabulary

FIELDS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "max_position_embeddings", "rms_norm_eps", "rope_theta", "hidden_act", "initializer_range", "attention_dropout",
)  # fmt: skip
MARKERS = ("pad", "bos", "eos", "img", "boi", "eoi", "eol", "eof")
PREFIXES = (
    (r"^(model\.)?text_model\.lm_head\.", "lm_head."),
    (r"^model\.text_model\.model\.", "model."),
    (r"^model\.text_model\.", "model."),
    (r"^text_model\.model\.", "model."),
)
ASIDE = (r"^(model\.)?vqmodel\.", r"rotary_emb\.inv_freq$")


def read_config(folder: Path, vocabulary: Vocabulary) -> dict[str, Any]:
    """Return the keywords of ``Emu3TextConfig`` in a checkpoint's ``config.json``.

    Raises:
        BundleError: it is absent, of another model, or counts other ids than the layout.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise BundleError(f"{folder} holds no config.json: give the folder of a downloaded checkpoint")
    refuse_pointer(path)
    try:
        values = json.loads(path.read_text())
        values = {**values, **(values.get("text_config") or {})}
        config = {name: values[name] for name in FIELDS if name in values}
    except (ValueError, TypeError, AttributeError):
        raise BundleError(f"{path} is no configuration: download it again") from None
    if not str(values.get("model_type", "")).lower().startswith("emu3"):
        raise BundleError(f"{path} is of model type '{values.get('model_type')}'; only Emu3 decoders are read")
    if values.get("action_experts"):
        raise BundleError(f"{path} has action_experts: the published decoder has none, and this one is not read")
    lacking = [name for name in FIELDS[:5] if name not in config]
    if lacking:
        raise BundleError(f"{path} lacks {', '.join(lacking)}: take the file that came with the weights")
    theta = (values.get("rope_parameters") or {}).get("rope_theta")
    if theta:
        config["rope_theta"] = theta
    if values.get("vocab_size") != vocabulary.size:
        raise BundleError(
            f"{path} has vocab_size {values.get('vocab_size')} where the layout has {vocabulary.size}: another "
            "vocabulary"
        )
    for name in MARKERS:
        given = values.get(f"{name}_token_id")
        if given is not None and given != getattr(vocabulary, name):
            raise BundleError(f"{path} has {name}_token_id {given} where the layout has {getattr(vocabulary, name)}")
    return config


def renamed(tensors: Mapping[str, Stored]) -> dict[str, Stored]:
    """Return the decoder's tensors under a bundle's names; what belongs to others is left aside."""
    found = {}
    for name, stored in tensors.items():
        if any(re.search(pattern, name) for pattern in ASIDE):
            continue
        for pattern, replacement in PREFIXES:
            name = re.sub(pattern, replacement, name)
        found[name] = dataclasses.replace(stored, name=name)
    return found


def wanted(config: Mapping[str, Any], vocabulary: Vocabulary) -> dict[str, tuple[int, ...]]:
    """Return the names of all weights that a configuration has, in the order of the sequence, with their shapes."""
    hidden, middle, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    keys = config["num_key_value_heads"] * (hidden // heads)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary.size, hidden)}
    for layer in range(config["num_hidden_layers"]):
        of = f"model.layers.{layer}."
        shapes |= {
            f"{of}input_layernorm.weight": (hidden,),
            f"{of}self_attn.q_proj.weight": (hidden, hidden),
            f"{of}self_attn.k_proj.weight": (keys, hidden),
            f"{of}self_attn.v_proj.weight": (keys, hidden),
            f"{of}self_attn.o_proj.weight": (hidden, hidden),
            f"{of}post_attention_layernorm.weight": (hidden,),
            f"{of}mlp.gate_proj.weight": (middle, hidden),
            f"{of}mlp.up_proj.weight": (middle, hidden),
            f"{of}mlp.down_proj.weight": (hidden, middle),
        }
    return {**shapes, "model.norm.weight": (hidden,), "lm_head.weight": (vocabulary.size, hidden)}
