"""The vision training: its losses, codebook, batches, scores, and that it learns and resumes."""

from __future__ import annotations

import argparse
import json

import numpy as np
import pytest
import torch

from udvla_ros.errors import ConfigError
from udvla_ros.tokens.vision import VisionTokenizer, to_pixels
from udvla_ros.training import vq_metrics
from udvla_ros.training.vq import VqOptions, VqTrainer
from udvla_ros.training.vq_codebook import EmaCodebook
from udvla_ros.training.vq_data import VqData, sample_pairs
from udvla_ros.training.vq_losses import (
    commitment_loss,
    pixel_weights,
    reconstruction_loss,
    saturation,
    stability_loss,
    straight_through,
)

COLOURS = {"red": (210, 20, 20), "green": (20, 180, 30), "blue": (20, 40, 210)}
TINY = {"multipliers": (1, 1), "codes": 16, "width": 4, "batch": 8, "crop": 16}


def table(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Grey tables with one square of each colour, 4 pixels a side."""
    random = np.random.default_rng(seed)
    images = np.full((count, height, width, 3), 150, np.uint8)
    for image in images:
        for colour in COLOURS.values():
            row, col = random.integers(0, height - 4), random.integers(0, width - 4)
            image[row : row + 4, col : col + 4] = colour
    return images


@pytest.fixture(scope="module")
def data() -> VqData:
    return VqData(
        {"front": table(24, 16, 32), "wrist": table(24, 16, 16, 1)},
        {"front": table(6, 16, 32, 2), "wrist": table(6, 16, 16, 3)},
    )


def test_weights_count_vivid_and_moving_pixels_more():
    image = np.full((1, 1, 4, 3), 150, np.uint8)
    image[0, 0, 1], image[0, 0, 2], image[0, 0, 3] = COLOURS["red"], (20, 20, 20), (60, 60, 60)
    pixels = to_pixels(image)
    background = to_pixels(np.full((1, 1, 4, 3), 150, np.uint8))
    plain, red, dark, grey = pixel_weights(pixels, background, vivid=12, moving=2)[0, 0, 0].tolist()
    assert plain == pytest.approx(1.0)
    assert red > 6 and dark == pytest.approx(3.0)
    assert 1.0 < grey <= 3.0
    assert float(pixel_weights(pixels, None, vivid=0)[0].max()) == 1.0
    assert float(saturation(to_pixels(np.array([[[[12, 0, 0]]]], np.uint8)))) < 0.25  # dark is not vivid


def test_reconstruction_loss_is_a_weighted_mean():
    pixels, output = torch.zeros(1, 3, 1, 2), torch.zeros(1, 3, 1, 2)
    output[..., 0] = 0.5
    weights = torch.tensor([[[[3.0, 1.0]]]])
    assert float(reconstruction_loss(output, pixels, weights)) == pytest.approx((0.5 + 0.25) * 3 / 4)


def test_straight_through_passes_values_forward_and_gradients_back():
    found = torch.tensor([1.0, 2.0], requires_grad=True)
    answer = straight_through(found, torch.tensor([3.0, 5.0]))
    answer.sum().backward()
    assert answer.tolist() == [3.0, 5.0] and found.grad.tolist() == [1.0, 1.0]
    found.grad = None
    commitment_loss(found, torch.tensor([3.0, 2.0])).backward()
    assert found.grad.tolist() == [-2.0, 0.0]  # towards the code


def test_stability_asks_only_unchanged_patches_to_stay_the_same():
    pixels = torch.zeros(1, 3, 8, 16)
    partners = pixels.clone()
    partners[..., 3, 12] = 1.0  # something changes in the second patch
    found = torch.randn(2, 1, 4, 1, 2, generator=torch.Generator().manual_seed(0))
    only_second = found.clone()
    only_second[1, ..., 0] = only_second[0, ..., 0]
    assert float(stability_loss(only_second, pixels, partners)) == 0.0
    assert float(stability_loss(found, pixels, partners)) > 0.01
    scaled = stability_loss(0.1 * found, pixels, partners)
    assert float(scaled) == pytest.approx(float(stability_loss(found, pixels, partners)), rel=1e-4)


def test_codebook_moves_to_the_means_of_its_latents():
    random = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 5.0], [5.0, 0.0], [-5.0, 0.0], [0.0, -5.0]])
    weight = centres.flip(0) * 0.3
    codebook = EmaCodebook(weight, decay=0.9)
    codebook.adopt()
    for _ in range(60):
        chosen = torch.randint(0, 4, (64,), generator=random)
        codebook.update(centres[chosen] + 0.1 * torch.randn(64, 2, generator=random), random)
    nearest = torch.cdist(centres, weight).min(1)
    assert float(nearest.values.max()) < 0.15
    assert len(nearest.indices.unique()) == 4


def test_dead_codes_are_restarted_where_latents_are_far_from_any():
    weight = torch.zeros(3, 2)
    codebook = EmaCodebook(weight, decay=0.5)
    weight.copy_(torch.tensor([[0.0, 0.0], [100.0, 100.0], [100.0, -100.0]]))
    codebook.adopt()
    latents = torch.zeros(50, 2)
    latents[7] = torch.tensor([6.0, 0.0])
    random = torch.Generator().manual_seed(1)
    restarted = sum(codebook.update(latents, random) for _ in range(12))
    assert restarted >= 2
    assert float(torch.cdist(torch.tensor([[6.0, 0.0]]), weight).min()) < 0.5
    before = weight.clone()
    codebook.count.zero_()
    assert codebook.update(latents, random, restart=False) == 0
    assert not torch.equal(before, weight) or codebook.count.sum() > 0


def test_codes_that_mean_the_same_are_merged_and_the_others_kept():
    weight = torch.tensor([[0.0, 0.0], [0.0, 0.1], [5.0, 0.0], [0.0, 5.0], [-5.0, 0.0], [0.0, -5.0]])
    codebook = EmaCodebook(weight)
    codebook.adopt()
    codebook.count[0] = 3.0
    codebook.total[0] = weight[0] * 3.0
    assert codebook.merge(closer=0.6) == 1
    assert codebook.count[1] == 0 and codebook.count[0] == pytest.approx(3.2)
    assert (codebook.count[2:] > 0).all()
    assert weight[0, 1] == pytest.approx(0.1 * 0.2 / 3.2)


def test_pairs_are_cut_alike_along_the_grid(data):
    random = np.random.default_rng(0)
    batches = sample_pairs(data, random, batch=8, crop=8, whole=False, grid=8, apart=1)
    assert [images.shape for images, _ in batches] == [(8, 8, 8, 3)]  # both cameras in one batch
    grounds = batches[0][1]
    assert np.array_equal(grounds[:4], grounds[4:])
    sizes = {images.shape for images, _ in sample_pairs(data, random, 32, 16, whole=True)}
    assert sizes == {(8, 16, 32, 3), (16, 16, 16, 3)}  # the same number of pixels of each camera
    numbered = np.broadcast_to(np.arange(20, dtype=np.uint8)[:, None, None, None], (20, 8, 8, 3))
    ordered = VqData({"front": numbered}, {"front": numbered})
    images, _ = sample_pairs(ordered, random, 16, 8, whole=False, apart=3)[0]
    later = (images[8:, 0, 0, 0].astype(int) - images[:8, 0, 0, 0]) % 20
    assert set(later) <= {1, 2, 3} and len(set(later)) > 1


def test_scores_see_a_lost_a_wrong_and_a_moved_object():
    original = table(8, 32, 32, seed=4)
    perfect = vq_metrics.object_scores(original, original)
    assert all(s["correct"] == s["found"] == 1.0 and s["offset_px"] == 0.0 for s in perfect.values() if s["seen"])
    assert vq_metrics.object_scores(original, np.full_like(original, 150))["red"]["found"] == 0.0
    assert vq_metrics.object_scores(original, original[..., ::-1])["red"]["correct"] == 0.0
    one = np.full((1, 16, 16, 3), 150, np.uint8)
    one[0, 4:8, 4:8] = COLOURS["green"]
    moved = vq_metrics.object_scores(one, np.roll(one, 2, 2))
    assert moved["green"]["seen"] == 1 and moved["green"]["offset_px"] == pytest.approx(2.0)
    assert vq_metrics.psnr(original, original) > 90 > 20 > vq_metrics.psnr(original, original // 2)


def test_flicker_counts_changed_codes_of_unchanged_patches_only():
    images = np.zeros((3, 8, 16, 3), np.uint8)
    images[2, 0, 0] = 255  # the first patch changes in the last frame
    codes = np.array([[[1, 5]], [[1, 6]], [[2, 6]]])
    assert vq_metrics.flicker(images, codes, 8) == pytest.approx(1 / 3)
    assert np.isnan(vq_metrics.flicker(images[:1], codes[:1], 8))


def test_training_learns_and_writes_what_it_promises(data, tmp_path):
    torch.set_num_threads(1)
    trainer = VqTrainer(data, VqOptions(steps=15, log_every=5, warm_up=2, **TINY), tmp_path)
    report = trainer.run()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [row["pixel_loss"] for row in rows if "pixel_loss" in row]
    assert losses[-1] < 0.8 * losses[0]
    assert report["steps"] == 15 and set(report["cameras"]) == {"front", "wrist"}
    assert {path.name for path in tmp_path.iterdir()} >= {"front.png", "wrist.png", "report.json", "checkpoint.pt"}
    tokenizer = VisionTokenizer.load(tmp_path / "vision")
    images = data.held_out["front"]
    assert torch.equal(tokenizer.encode(images), VisionTokenizer(trainer._frozen_copy()).encode(images))
    assert json.loads((tmp_path / "report.json").read_text())["codes_used"] == report["codes_used"]


def test_an_interrupted_training_goes_on_where_it_was(data, tmp_path):
    options = VqOptions(steps=6, **TINY)
    trainer = VqTrainer(data, options, tmp_path)
    for _ in range(3):
        trainer.train_step()
    trainer.checkpoint()
    again = VqTrainer(data, options, tmp_path, resume=True)
    assert again.step == 3 and again.progress == pytest.approx(0.5)
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    assert torch.equal(trainer.codebook.total, again.codebook.total) and bool(again.codebook.ready)
    again.train_step()
    other = VqOptions(steps=6, **(TINY | {"codes": 32}))
    with pytest.raises(ConfigError, match="another size"):
        VqTrainer(data, other, tmp_path, resume=True)


def test_a_trained_tokeniser_can_be_started_from(data, tmp_path):
    first = VqTrainer(data, VqOptions(steps=2, **TINY), tmp_path / "a")
    first.train_step()
    start = VisionTokenizer(first._frozen_copy())
    before = start.embeddings.clone()
    second = VqTrainer(data, VqOptions(steps=2, stability=2.0, merge_every=1, **TINY), tmp_path / "b", start=start)
    assert torch.equal(second.model.quantize.embedding.weight, before)
    outcome = second.train_step()
    assert np.isfinite(outcome["loss"]) and outcome["stability"] > 0
    assert not second.model.quantize.embedding.weight.requires_grad


def test_a_training_without_a_budget_or_data_is_refused():
    with pytest.raises(ConfigError, match="budget"):
        VqOptions()
    with pytest.raises(ConfigError, match="front"):
        VqData({"front": table(4, 16, 16)}, {"front": table(0, 16, 16)})


def test_the_command_line_offers_what_the_options_need():
    from udvla_ros.cli.train_vision import register

    parser = argparse.ArgumentParser()
    register(parser.add_subparsers())
    args = parser.parse_args(["vision", "--data", "x", "--minutes", "3", "--multipliers", "1,2"])
    assert args.multipliers == (1, 2) and args.minutes == 3.0 and callable(args.run)
