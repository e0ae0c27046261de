"""Images to codes and back: shapes, ranges, refusals, files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Emu3VQVAE

from udvla_ros.errors import BundleError, ObservationError, TokenError
from udvla_ros.tokens.vision import VisionTokenizer, latents, reconstruct, small_config, to_images, to_pixels


def make(multipliers=(1, 1, 1, 1), codes=32, slots=1, seed=0) -> VisionTokenizer:
    torch.manual_seed(seed)
    config = small_config(base=32, multipliers=multipliers, codes=codes, width=4)
    config.temporal_downsample_factor = slots
    return VisionTokenizer(Emu3VQVAE(config))


@pytest.fixture(scope="module")
def tokenizer() -> VisionTokenizer:
    return make()


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_codes_are_a_grid_of_whole_numbers_in_the_codebook(tokenizer):
    codes = tokenizer.encode(noise(3, 48, 64, 3))
    assert codes.shape == (3, 6, 8) and codes.dtype == torch.long
    assert int(codes.min()) >= 0 and int(codes.max()) < tokenizer.codebook_size == 32
    assert len(codes.unique()) > 1
    images = tokenizer.decode(codes)
    assert images.shape == (3, 48, 64, 3) and images.dtype == np.uint8


def test_encode_takes_numpy_and_torch_and_splits_into_batches(tokenizer):
    images = noise(5, 16, 24, 3)
    whole = tokenizer.encode(images)
    assert torch.equal(whole, tokenizer.encode(torch.from_numpy(images)))
    assert torch.equal(whole, tokenizer.encode(images, batch=2))
    assert np.array_equal(tokenizer.decode(whole), tokenizer.decode(whole.numpy(), batch=2))


def test_codes_are_those_of_the_transformers_model(tokenizer):
    images = noise(2, 16, 24, 3)
    sizes = torch.tensor([[16, 24]] * 2)
    with torch.no_grad():
        theirs = tokenizer.model.encode(to_pixels(images), sizes).image_tokens
    assert torch.equal(torch.stack(theirs), tokenizer.encode(images))


def test_reconstruct_is_the_differentiable_twin_of_decode(tokenizer):
    codes = tokenizer.encode(noise(2, 16, 16, 3))
    quantised = tokenizer.embeddings[codes].unsqueeze(1).permute(0, 1, 4, 2, 3)
    assert np.array_equal(to_images(reconstruct(tokenizer.model, quantised).detach()), tokenizer.decode(codes))


def test_published_temporal_slots_squeeze_a_still_image_into_one_grid():
    tokenizer = make(slots=4)
    images = noise(2, 16, 16, 3)
    codes = tokenizer.encode(images)
    assert codes.shape == (2, 2, 2)
    theirs = tokenizer.model.encode(to_pixels(images), torch.tensor([[16, 16]] * 2)).image_tokens
    assert torch.equal(torch.stack([grid.squeeze(0) for grid in theirs]), codes)
    assert tokenizer.decode(codes).shape == (2, 16, 16, 3)
    assert latents(tokenizer.model, to_pixels(images)).shape == (2, 1, 4, 2, 2)


def test_views_of_different_sizes_keep_their_order_and_equal_single_encoding(tokenizer):
    views = {"wrist": noise(16, 16, 3), "front": noise(24, 32, 3)}
    codes = tokenizer.encode_views(views)
    assert list(codes) == ["wrist", "front"]
    assert codes["front"].shape == (3, 4) and codes["wrist"].shape == (2, 2)
    assert torch.equal(codes["front"], tokenizer.encode(views["front"][None])[0])


@given(height=st.integers(-8, 80), width=st.integers(-8, 80))
@settings(max_examples=60, deadline=None)
def test_grid_accepts_exactly_positive_multiples_of_the_factor(tokenizer, height, width):
    if height > 0 and width > 0 and height % 8 == 0 and width % 8 == 0:
        assert tokenizer.grid(height, width) == (height // 8, width // 8)
    else:
        with pytest.raises(ObservationError, match="multiples of 8"):
            tokenizer.grid(height, width)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_scaling_to_pixels_loses_nothing(seed):
    images = noise(2, 5, 4, 3, seed=seed)
    pixels = to_pixels(images)
    assert pixels.shape == (2, 3, 5, 4) and float(pixels.abs().max()) <= 1.0
    assert np.array_equal(to_images(pixels), images)


@pytest.mark.parametrize(
    "images",
    [noise(16, 16, 3), noise(1, 16, 16, 4), noise(1, 16, 16, 3).astype(np.float32)],
    ids=["no batch", "four channels", "floats"],
)
def test_other_images_are_refused(tokenizer, images):
    with pytest.raises(ObservationError, match="uint8"):
        tokenizer.encode(images)


def test_an_error_in_a_view_names_the_view(tokenizer):
    with pytest.raises(ObservationError, match=r"view 'wrist'.*20x16"):
        tokenizer.encode_views({"front": noise(16, 16, 3), "wrist": noise(20, 16, 3)})


@pytest.mark.parametrize("codes", [[[[0, 32]]], [[[-1, 0]]], [[0, 1]], [[[0.5]]]])
def test_codes_that_are_none_are_refused(tokenizer, codes):
    with pytest.raises(TokenError, match="codes"):
        tokenizer.decode(np.array(codes))


def test_no_images_give_no_codes(tokenizer):
    assert tokenizer.encode(noise(0, 16, 24, 3)).shape == (0, 2, 3)
    assert tokenizer.decode(np.zeros((0, 2, 3), int)).shape == (0, 16, 24, 3)


def test_saved_and_loaded_gives_the_same_codes(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "vision")
    assert {path.name for path in (tmp_path / "vision").iterdir()} == {"config.json", "model.safetensors"}
    again = VisionTokenizer.load(tmp_path / "vision")
    images = noise(2, 16, 24, 3)
    assert torch.equal(again.encode(images), tokenizer.encode(images))
    assert torch.equal(again.embeddings, tokenizer.embeddings)
    assert again.embeddings.shape == (32, 4) and not again.embeddings.requires_grad


def test_a_folder_without_its_parts_is_refused(tokenizer, tmp_path):
    with pytest.raises(BundleError, match=r"config\.json is missing"):
        VisionTokenizer.load(tmp_path)
    tokenizer.save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(BundleError, match=r"model\.safetensors is missing"):
        VisionTokenizer.load(tmp_path)


@pytest.mark.parametrize("change", [{"num_res_blocks": 2}, {"codebook_size": 64}], ids=["names", "sizes"])
def test_weights_of_another_configuration_are_refused(tokenizer, tmp_path, change):
    tokenizer.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BundleError, match="vision"):
        VisionTokenizer.load(tmp_path)


def test_base_channels_must_fit_the_group_norms():
    with pytest.raises(TokenError, match="32"):
        small_config(base=24)
