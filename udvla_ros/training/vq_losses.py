"""What the vision tokeniser is asked to get right: small vivid objects and whatever moves.

With a plain pixel loss the arm and the table win and a cube of five pixels turns into a grey smudge, which
no instruction can name. The weights here make vivid and moving pixels count.
"""

from __future__ import annotations

import torch
from torch import Tensor


def saturation(pixels: Tensor) -> Tensor:
    """Return colourfulness in 0..1 of pixels in [-1, 1]: [B, 3, H, W] -> [B, 1, H, W].

    HSV saturation with a floor under the brightness, so that noise in the dark is not called vivid.
    """
    high, low = pixels.amax(1, keepdim=True), pixels.amin(1, keepdim=True)
    return (high - low) / (high + 1.0).clamp_min(0.5)


def pixel_weights(pixels: Tensor, background: Tensor | None, vivid: float = 12.0, moving: float = 2.0) -> Tensor:
    """Return how much each pixel counts, 1 and more: [B, 3, H, W] -> [B, 1, H, W].

    Args:
        pixels: originals in [-1, 1].
        background: what the camera usually shows there, same shape; None if unknown.
        vivid: weight per unit of saturation above one half.
        moving: weight of a pixel that differs from the background by 0.4 (of 2) or more.
    """
    weights = 1.0 + vivid * (saturation(pixels) - 0.5).clamp_min(0.0)
    if background is not None:
        difference = (pixels - background).abs().amax(1, keepdim=True)
        weights = weights + moving * (difference / 0.4).clamp_max(1.0)
    return weights


def reconstruction_loss(output: Tensor, pixels: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean of |error| + error² over all pixels and channels."""
    error = output - pixels
    each = (error.abs() + error.square()).mean(1, keepdim=True)
    return (each * weights).sum() / weights.sum()


def straight_through(latents: Tensor, quantised: Tensor) -> Tensor:
    """Return the quantised values with the gradient of the latents."""
    return latents + (quantised - latents).detach()


def commitment_loss(latents: Tensor, quantised: Tensor) -> Tensor:
    """Return how far the encoder strays from the codes it is given."""
    return torch.nn.functional.mse_loss(latents, quantised.detach())


def stability_loss(latents: Tensor, pixels: Tensor, partners: Tensor, still: float = 0.03) -> Tensor:
    """Return how much latents of unchanged patches differ between two frames, as a share of their variance.

    The network's norms and attention see the whole image, so a patch's latents would otherwise follow what
    happens elsewhere, and its code would flip although nothing changed there.

    Args:
        latents: [2B, 1, width, rows, cols] of the frames and then of their partners.
        pixels: the frames [B, 3, H, W] in [-1, 1].
        partners: other frames of the same window, same shape.
        still: largest change of a pixel (of 2) that counts as none.
    """
    first, second = latents.squeeze(1).chunk(2)
    side = pixels.shape[-1] // latents.shape[-1]
    change = torch.nn.functional.max_pool2d((pixels - partners).abs().amax(1, keepdim=True), side)
    same = (change <= still).float()
    apart = ((first - second).square().mean(1, keepdim=True) * same).sum() / same.sum().clamp_min(1.0)
    # In units of the latents' own spread, or shrinking all of them would count as stability.
    return apart / latents.detach().var().clamp_min(1e-6)
