"""A bundle comes back as it was, or says in one line what is wrong with it."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from udvla_ros.errors import BundleError
from udvla_ros.model.checkpoint import PARTS, ActionConvention, Bundle, checked_device, sha256
from udvla_ros.tokens.action import FastTokenizer
from udvla_ros.tokens.layout import Layout, View
from udvla_ros.tokens.normalize import QuantileNormalizer
from udvla_ros.tokens.text import TextTokenizer


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return tiny.saved(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture
def folder(original, tmp_path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(original, tmp_path / "tiny"))


def refused(folder: Path, *named: str, **options) -> None:
    """Loading must fail with one line that holds each of the words."""
    with pytest.raises(BundleError) as caught:
        Bundle.load(folder, **options)
    line = str(caught.value)
    assert "\n" not in line
    for word in named:
        assert word in line, line


def edit(folder: Path, change) -> None:
    """Change config.json in place."""
    path = folder / "config.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def rehash(folder: Path) -> None:
    """Let config.json vouch for the files as they are."""
    edit(folder, lambda values: values["parts"].update({n: sha256(folder / n) for n in values["parts"]}))


# -- round trip --------------------------------------------------------------------------------------


@torch.inference_mode()
def test_round_trip_keeps_logits_configuration_and_hash(original, tmp_path):
    built, loaded = tiny.bundle(), Bundle.load(original)
    prefix = tiny.tensors(tiny.prefix([[1, 2, 3]]))
    mask, where = built.backbone.sequence_mask(prefix[2], prefix[1])
    ids = torch.cat([prefix[0], built.backbone.suffix_ids[None]], 1)
    logits = [b.backbone.logits(b.backbone.hidden(ids, where, mask)) for b in (built, loaded)]
    assert torch.equal(*logits)
    assert loaded.config.layout == built.config.layout
    assert loaded.config.action == built.config.action
    assert loaded.config.decoding == built.config.decoding
    assert not loaded.backbone.training
    chunk = tiny.chunks(1)[0]
    assert loaded.fast.encode(chunk, clip=True) == built.fast.encode(chunk, clip=True)
    image = tiny.images()["front"][None]
    assert torch.equal(loaded.vision.encode(image), built.vision.encode(image))
    again = loaded.save(tmp_path / "again")
    assert loaded.hash == Bundle.load(original).hash == Bundle.load(again).hash


def test_other_weights_have_another_hash(original, tmp_path):
    other = tiny.saved(tmp_path / "other", seed=1)
    assert Bundle.load(original).hash != Bundle.load(other).hash


def test_every_part_is_listed_and_the_card_is_written(original):
    parts = json.loads((original / "config.json").read_text())["parts"]
    assert set(parts) == set(PARTS)
    assert "random" in (original / "README.md").read_text()


def test_weights_take_no_detour_through_pickle(original, monkeypatch):
    def forbidden(*_args, **_kwargs):
        raise AssertionError("a bundle was read with pickle")

    monkeypatch.setattr(torch, "load", forbidden)
    monkeypatch.setattr(pickle, "load", forbidden)
    monkeypatch.setattr(pickle, "loads", forbidden)
    monkeypatch.setattr(pickle, "Unpickler", forbidden)
    monkeypatch.setattr(np, "load", forbidden)
    Bundle.load(original)
    kinds = {path.suffix for path in original.rglob("*") if path.is_file()}
    assert kinds == {".json", ".safetensors", ".md"}


# -- missing and changed parts -----------------------------------------------------------------------


@pytest.mark.parametrize("part", PARTS)
def test_missing_part_is_named(folder, part):
    (folder / part).unlink()
    refused(folder, part, "lacks")


@pytest.mark.parametrize("part", PARTS)
def test_changed_byte_is_noticed(folder, part):
    data = bytearray((folder / part).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / part).write_bytes(data)
    refused(folder, part, "not the file this bundle was saved with")


def test_missing_config_is_named(folder, tmp_path):
    (folder / "config.json").unlink()
    refused(folder, "config.json")
    refused(tmp_path / "nowhere", "config.json")


def test_parts_without_a_hash_are_refused(folder):
    edit(folder, lambda values: values["parts"].pop("model.safetensors"))
    refused(folder, "model.safetensors", "no hash")


# -- a broken config.json ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "null", '{"format": 1}', '"bundle"'], ids=lambda text: text or "empty"
)
def test_config_that_is_none(folder, text):
    (folder / "config.json").write_text(text)
    refused(folder, "config.json", "no bundle configuration")


@pytest.mark.parametrize("key", ["format", "name", "backbone", "layout", "attention", "action", "decoding", "parts"])
def test_missing_key_is_named(folder, key):
    edit(folder, lambda values: values.pop(key))
    refused(folder, "config.json", key)


def test_newer_format_is_refused(folder):
    edit(folder, lambda values: values.update(format=2))
    refused(folder, "format 2", "reads 1")


@pytest.mark.parametrize(
    ("section", "change", "named"),
    [
        ("backbone", {"hidden_size": "wide"}, "backbone"),
        ("backbone", {"num_attention_heads": 0}, "backbone"),
        ("backbone", {"hidden_act": "magic"}, "backbone"),
        ("backbone", {"num_hidden_layers": 3}, "model.safetensors"),
        ("backbone", {"hidden_size": 64}, "model.safetensors"),
        ("action", {"colour": "red"}, "colour"),
        ("action", {"space": "thoughts"}, "thoughts"),
        ("action", {"frame": "moon"}, "moon"),
        ("action", {"gripper": 3}, "gripper"),
        ("action", {"control_hz": 0}, "control_hz"),
        ("action", {"chunk": 0}, "chunk"),
        ("layout", {"views": []}, "camera view"),
        ("layout", {"views": [{"name": "front"}]}, "header"),
        ("layout", {"vocabulary": {}}, "layout"),
    ],
)
def test_wrong_value_is_named(folder, section, change, named):
    edit(folder, lambda values: values[section].update(change))
    refused(folder, named)


def test_unknown_attention_lists_the_known(folder):
    edit(folder, lambda values: values.update(attention="diagonal"))
    refused(folder, "diagonal", "hybrid")


# -- parts of different bundles ----------------------------------------------------------------------


def spoil(change) -> Bundle:
    bundle = tiny.bundle()
    change(bundle)
    return bundle


def change_layout(bundle: Bundle, **changes) -> None:
    layout = dataclasses.replace(bundle.config.layout, **changes)
    bundle.config = dataclasses.replace(bundle.config, layout=layout)


def change_vocabulary(bundle: Bundle, **sizes) -> None:
    v = bundle.config.layout.vocabulary
    kept = {"text_size": v.text_size, "visual_size": v.visual_size, "action_size": v.action_size}
    change_layout(bundle, vocabulary=type(v).compact(**{**kept, **sizes}))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda b: change_vocabulary(b, visual_size=17), "the vision codebook has 16"),
        (lambda b: change_vocabulary(b, action_size=25), "the FAST vocabulary has 24"),
        (lambda b: change_vocabulary(b, text_size=3), "text tokenizer"),
        (lambda b: setattr(b, "normalizer", QuantileNormalizer([-1.0], [1.0])), "norm_stats has 1"),
        (
            lambda b: setattr(b, "fast", FastTokenizer.fit(tiny.chunks(50)[:, :3], 64, 3)),
            "the FAST (vocabulary|chunk)",
        ),
        (
            lambda b: setattr(b, "text", TextTokenizer.train([" ".join(f"w{i}" for i in range(60))])),
            "text tokenizer",
        ),
        (lambda b: change_layout(b, views=(View("front", 8, 12, 3, 3),)), "camera front is 3x3"),
        (lambda b: change_layout(b, views=(View("front", 9, 12, 2, 3),)), "camera front"),
    ],
)
def test_parts_of_different_bundles_are_refused(change, named, tmp_path):
    bundle = spoil(change)
    with pytest.raises(BundleError, match=named):
        bundle.check()
    with pytest.raises(BundleError, match=named):
        bundle.save(tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_swapped_fast_files_are_refused_even_with_fresh_hashes(folder):
    other = FastTokenizer.fit(tiny.chunks(300, seed=5), tiny.FAST_CODES + 8, scale=3)
    other.save(folder / "action")
    rehash(folder)
    refused(folder, "FAST vocabulary")


def test_fast_of_another_chunk_is_refused_even_with_fresh_hashes(folder):
    FastTokenizer.fit(tiny.chunks(300)[:, :3], tiny.FAST_CODES, scale=3).save(folder / "action")
    rehash(folder)
    refused(folder, "time_horizon")


def test_norm_stats_of_another_robot_are_refused_even_with_fresh_hashes(folder):
    QuantileNormalizer([-1.0] * 7, [1.0] * 7).save(folder / "action", "other")
    rehash(folder)
    refused(folder, "norm_stats")


def test_weights_with_a_tensor_too_few_name_the_file(folder):
    weights = load_file(folder / "model.safetensors")
    weights.pop("lm_head.weight")
    save_file(weights, folder / "model.safetensors")
    rehash(folder)
    refused(folder, "model.safetensors", "lm_head.weight")


def test_truncated_weights_name_the_file(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    rehash(folder)
    refused(folder, "model.safetensors", "cannot be read")


# -- devices -----------------------------------------------------------------------------------------


def test_missing_gpu_is_said_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refused(tmp_path / "nowhere", "CUDA", "device cpu", device="cuda")


def test_gpu_beyond_the_last_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert checked_device("cuda:0").index == 0
    with pytest.raises(BundleError, match="cuda:1"):
        checked_device("cuda:1")


@pytest.mark.parametrize("device", ["toaster", "meta", "cpu:x", ""])
def test_no_device(device):
    with pytest.raises(BundleError, match="cpu or cuda"):
        checked_device(device)


def test_convention_without_gripper_is_fine():
    assert ActionConvention(space="joint_absolute", dimensions=6, gripper=None).gripper is None


def test_layout_of_a_saved_bundle_can_be_read_alone(original):
    values = json.loads((original / "config.json").read_text())
    assert Layout.from_dict(values["layout"]) == tiny.layout()
