"""Weights in files: one or several, under the published names, read in little more memory than they take."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from udvla_ros.errors import BundleError
from udvla_ros.model import weights
from udvla_ros.model.backbone import Backbone
from udvla_ros.model.checkpoint import Bundle
from udvla_ros.model.runtime import RuntimeOptions

CPU = torch.device("cpu")


def empty(**changes) -> Backbone:
    return Backbone({**tiny.BACKBONE, **changes}, tiny.layout(), empty=True)


def equal(a: Backbone, b: Backbone) -> bool:
    theirs = dict(b.decoder.named_parameters())
    return all(torch.equal(value, theirs[name]) for name, value in a.decoder.named_parameters())


def test_names_are_the_published_ones(tmp_path):
    net = tiny.backbone()
    weights.write(net.decoder, tmp_path)
    stored = load_file(tmp_path / weights.WEIGHTS)
    layer = "model.layers.1."
    assert {n.removeprefix(layer) for n in stored if n.startswith(layer)} == {
        "input_layernorm.weight",
        "post_attention_layernorm.weight",
        *(f"self_attn.{n}_proj.weight" for n in "qkvo"),
        *(f"mlp.{n}_proj.weight" for n in ("gate", "up", "down")),
    }
    assert {n for n in stored if "layers" not in n} == {
        "model.embed_tokens.weight",
        "model.norm.weight",
        "lm_head.weight",
    }
    qkv = torch.cat([stored[f"{layer}self_attn.{n}_proj.weight"] for n in "qkv"])
    assert torch.equal(qkv, net.decoder.layers[1].qkv.weight)


@pytest.mark.parametrize("limit", [weights.SHARD, 4000])
def test_round_trip_in_one_file_or_several(tmp_path, limit, monkeypatch):
    monkeypatch.setattr(weights, "BLOCK", 256)
    net, other = tiny.backbone(seed=3), empty()
    weights.write(net.decoder, tmp_path, limit)
    weights.write(net.decoder, tmp_path, limit)  # over what was there
    assert len(list(tmp_path.glob("*.safetensors"))) == (
        1 if limit > 4000 else len(set(json.loads((tmp_path / weights.INDEX).read_text())["weight_map"].values()))
    )
    weights.read(other.decoder, tmp_path, CPU, torch.float32)
    assert equal(net, other)
    assert all(p.requires_grad for p in other.decoder.parameters())


def test_a_bundle_in_several_files_is_checked_like_any_other(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "SHARD", 4000)
    monkeypatch.setattr(weights.write, "__defaults__", (4000,))
    folder = tiny.saved(tmp_path / "bundle")
    assert not (folder / weights.WEIGHTS).exists()
    assert equal(Bundle.load(folder).backbone, tiny.backbone())
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(BundleError, match=shard.name):
        Bundle.load(folder)
    (folder / weights.INDEX).write_text("{}")
    with pytest.raises(BundleError, match="no index of weights"):
        weights.read(empty().decoder, folder, CPU, torch.float32)


@pytest.mark.parametrize("kind", ["bfloat16", "int8", "fp8"])
def test_other_number_types_are_made_while_reading(tmp_path, kind):
    folder = tiny.saved(tmp_path / "bundle")
    runtime = RuntimeOptions(dtype=kind) if kind == "bfloat16" else RuntimeOptions(weights=kind, threads=1)
    loaded = Bundle.load(folder, runtime=runtime)
    if kind == "bfloat16":
        assert equal(loaded.backbone, tiny.backbone().to(torch.bfloat16))
        Bundle.load(loaded.save(tmp_path / "again"))
        return
    names = {name for name, _ in loaded.backbone.decoder.named_parameters()}
    assert not any(name.endswith(".weight") for name in names)  # the stored ones are gone
    assert "layers.0.attention_norm" in names
    with pytest.raises(BundleError, match="rounded to 8 bits cannot be saved"):
        loaded.save(tmp_path / "again")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda w: w.pop("model.norm.weight"), "lacks model.norm.weight"),
        (lambda w: w.update(extra=torch.zeros(1)), "has extra in excess"),
        (lambda w: w.update({"model.norm.weight": torch.zeros(3)}), "model.norm.weight is"),
    ],
)
def test_files_that_do_not_fit_are_named(tmp_path, change, word):
    weights.write(tiny.backbone().decoder, tmp_path)
    stored = load_file(tmp_path / weights.WEIGHTS)
    change(stored)
    save_file(stored, tmp_path / weights.WEIGHTS)
    with pytest.raises(BundleError, match=word):
        weights.read(empty().decoder, tmp_path, CPU, torch.float32)


SIZE = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 16}  # 67 M parameters, 270 MB


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is counted by Linux")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loading_takes_little_more_memory_than_the_weights(tmp_path, dtype):
    net = tiny.backbone(**SIZE)
    weights.write(net.decoder, tmp_path)
    script = f"""
import tiny, torch
from pathlib import Path
from udvla_ros.model import weights
from udvla_ros.model.backbone import Backbone
def resident(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])
net = Backbone({{**tiny.BACKBONE, **{SIZE}}}, tiny.layout(), empty=True)
Path("/proc/self/clear_refs").write_text("5")
before = resident("VmRSS")
weights.read(net.decoder, Path({str(tmp_path)!r}), torch.device("cpu"), torch.{dtype})
print(resident("VmHWM") - before)
"""
    env = {**os.environ, "PYTHONPATH": str(Path(tiny.__file__).parent)}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False, env=env
    )
    assert done.returncode == 0, done.stderr[-2000:]
    size = (tmp_path / weights.WEIGHTS).stat().st_size // (1 if dtype == "float32" else 2)
    assert size < int(done.stdout) < 1.15 * size + (weights.BLOCK if dtype != "float32" else 0)
