"""The decoder's shape: what of a bundle's ``backbone`` section decides what is built, under the published names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from udvla_ros.errors import BundleError

# Keys of published config.json files that say nothing about the shape, or what only one value of is spoken here.
SILENT = frozenset({
    "vocab_size", "pad_token_id", "bos_token_id", "eos_token_id", "use_cache", "model_type", "architectures",
    "torch_dtype", "dtype", "transformers_version", "pretraining_tp", "boi_token_id", "eoi_token_id", "img_token_id",
    "eof_token_id", "eol_token_id", "image_area", "auto_map", "_name_or_path",
})  # fmt: skip  # a list of words
FIXED = {
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "rope_scaling": None,
    "attention_bias": False,
    "mlp_bias": False,
}


@dataclass(frozen=True)
class Shape:
    """An Emu3-shaped decoder. Defaults are the published 8 B model's.

    ``attention_dropout`` acts in training alone, on attention weights and on what each half layer adds.
    """

    vocab_size: int
    hidden_size: int = 4096
    intermediate_size: int = 14336
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = 8
    max_position_embeddings: int = 9216
    rms_norm_eps: float = 1e-5
    rope_theta: float = 1e6
    attention_dropout: float = 0.1
    initializer_range: float = 0.02

    @classmethod
    def of(cls, values: Mapping[str, Any], vocab_size: int) -> Shape:
        """Read a ``backbone`` section; the vocabulary's size is the layout's.

        Raises:
            BundleError: a key is unknown, a value has another type, is out of range or is not spoken here.
        """
        values = dict(values)
        rope = values.pop("rope_parameters", None) or {}
        if rope.get("rope_type", "default") != "default":
            raise BundleError(f"backbone has rope_type '{rope['rope_type']}'; only the default one is known")
        values = {**({"rope_theta": rope["rope_theta"]} if "rope_theta" in rope else {}), **values}
        for name, known in FIXED.items():
            if values.get(name, known) != known:
                raise BundleError(f"backbone has {name} {values[name]!r}; this decoder knows only {known!r}")
        types = {field.name: field.type for field in fields(cls)}
        chosen: dict[str, Any] = {}
        for name, value in values.items():
            if name in SILENT or name in FIXED:
                continue
            if name not in types:
                raise BundleError(f"backbone has an unknown key '{name}'; known: {', '.join(list(types)[1:])}")
            kind = int if types[name] == "int" else (int, float)
            if not isinstance(value, kind) or isinstance(value, bool):
                raise BundleError(f"backbone has {name} {value!r}; it must be a number")
            chosen[name] = value
        return cls(vocab_size, **chosen)

    def __post_init__(self) -> None:
        for field in fields(self):
            value, least = getattr(self, field.name), 0 if field.name == "attention_dropout" else None
            if value < 0 or (least is None and value == 0):
                raise BundleError(f"backbone has {field.name} {value}; it must be above zero")
        if self.hidden_size % (2 * self.num_attention_heads) or self.num_attention_heads % self.num_key_value_heads:
            raise BundleError(
                f"backbone has hidden_size {self.hidden_size}, {self.num_attention_heads} heads and "
                f"{self.num_key_value_heads} key heads; each must divide the one before it, into even heads"
            )

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def groups(self) -> int:
        """Query heads per key head."""
        return self.num_attention_heads // self.num_key_value_heads

    @property
    def query_width(self) -> int:
        """Rows of the query projection."""
        return self.hidden_size

    @property
    def key_width(self) -> int:
        """Rows of the key projection, and of the value projection."""
        return self.num_key_value_heads * self.head_dim

    @property
    def parameters(self) -> int:
        """How many numbers the weights are."""
        h, i = self.hidden_size, self.intermediate_size
        layer = h * (2 * self.query_width + 2 * self.key_width) + 3 * h * i + 2 * h
        return 2 * self.vocab_size * h + self.num_hidden_layers * layer + h
