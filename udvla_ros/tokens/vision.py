"""Camera images as grids of codes: the Emu3 vision tokeniser at any size (Emu3, arXiv 2409.18869, section 3.2).

The published tokeniser and a small one trained here are the same ``transformers`` model with another
configuration, so one class serves both. Images enter scaled to [-1, 1] (mean = std = 0.5); a still image is
repeated over the temporal slots that the model squeezes into one (four in the published model, one in ours).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Emu3VQVAE, Emu3VQVAEConfig
from transformers.utils import logging

from udvla_ros.errors import BundleError, ObservationError, TokenError


def small_config(
    base: int = 32,
    multipliers: tuple[int, ...] = (1, 1, 2, 2),
    codes: int = 512,
    width: int = 8,
    blocks: int = 1,
) -> Emu3VQVAEConfig:
    """Return a configuration small enough to train on a CPU (about a million parameters).

    Args:
        base: channels at full resolution; a multiple of 32, the group norms' number of groups.
        multipliers: channels per level in units of ``base``; each level after the first halves the sides.
        codes: size of the codebook.
        width: dimensions of a code.
        blocks: residual blocks per level of the encoder (the decoder has one more).

    Raises:
        TokenError: ``base`` does not fit the group norms.
    """
    if base % 32:
        raise TokenError(f"a vision tokeniser needs base channels in multiples of 32, not {base}")
    return Emu3VQVAEConfig(
        base_channels=base,
        channel_multiplier=list(multipliers),
        num_res_blocks=blocks,
        codebook_size=codes,
        embed_dim=width,
        latent_channels=width,
        temporal_downsample_factor=1,
        attn_resolutions=[len(multipliers) - 1],
        hidden_size=base * multipliers[-1],
    )


def to_pixels(images: np.ndarray | Tensor) -> Tensor:
    """Return uint8 images [B, H, W, 3] as floats [B, 3, H, W] in [-1, 1] (channels last in memory).

    Raises:
        ObservationError: another dtype or shape.
    """
    tensor = torch.as_tensor(images)
    if tensor.dtype != torch.uint8 or tensor.ndim != 4 or tensor.shape[-1] != 3:
        raise ObservationError(
            f"images must be uint8 [B, H, W, 3], not {tensor.dtype} {list(tensor.shape)}: convert them to RGB first"
        )
    return tensor.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def to_images(pixels: Tensor) -> np.ndarray:
    """Return floats [B, 3, H, W] in [-1, 1] as uint8 images [B, H, W, 3]; values beyond are clipped."""
    scaled = pixels.add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
    return scaled.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def latents(model: Emu3VQVAE, pixels: Tensor) -> Tensor:
    """Return what the quantiser sees of still images: [B, 3, H, W] -> [B, 1, width, rows, cols]."""
    slots = model.config.temporal_downsample_factor
    video = pixels.unsqueeze(1)
    if slots > 1:
        video = video.expand(-1, slots, -1, -1, -1)
    hidden = model.encoder(video).permute(0, 2, 1, 3, 4)
    return model.quant_conv(hidden).permute(0, 2, 1, 3, 4)


def reconstruct(model: Emu3VQVAE, quantised: Tensor) -> Tensor:
    """Return the images of quantised latents, with gradients: [B, 1, width, rows, cols] -> [B, 3, H, W]."""
    hidden = model.post_quant_conv(quantised.permute(0, 2, 1, 3, 4)).permute(0, 2, 1, 3, 4)
    video = model.decoder(hidden, quantised)
    # The decoder puts the temporal slots into the batch; all of them show the same still image.
    return video[:: model.config.temporal_downsample_factor]


def prefer_channels_last(model: nn.Module) -> None:
    """Store the 2-D convolutions channels last, which makes them about twice as fast on a CPU."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Keep the library from drawing bars for files that load in milliseconds."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


class VisionTokenizer:
    """Images to codes and back, for any number of views of any size.

    Args:
        model: the tokeniser's network; put in evaluation mode and frozen.
        device: where it computes.
    """

    def __init__(self, model: Emu3VQVAE, device: str | torch.device = "cpu") -> None:
        self.model = model.to(device).eval().requires_grad_(False)
        if torch.device(device).type == "cpu":
            prefer_channels_last(self.model)

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> VisionTokenizer:
        """Read ``config.json`` and ``model.safetensors`` from a folder.

        Raises:
            BundleError: a file is missing, or the weights do not fit the configuration.
        """
        folder = Path(folder)
        for name in ("config.json", "model.safetensors"):
            if not (folder / name).is_file():
                raise BundleError(f"no vision tokeniser in '{folder}': {name} is missing; train or copy one there")
        try:
            with _without_progress_bars():
                model, info = Emu3VQVAE.from_pretrained(
                    folder, local_files_only=True, use_safetensors=True, output_loading_info=True
                )
        except (OSError, RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise BundleError(f"the vision tokeniser in '{folder}' cannot be read: {reason}") from error
        wrong = sorted(info["missing_keys"]) + sorted(info["unexpected_keys"])
        if wrong:
            raise BundleError(
                f"the vision weights in '{folder}' do not fit their config.json: {len(wrong)} names differ, "
                f"'{wrong[0]}' first; take both files from one training"
            )
        return cls(model, device)

    def save(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` into a folder, made if need be."""
        state = {name: value.contiguous() for name, value in self.model.state_dict().items()}
        with _without_progress_bars():
            self.model.save_pretrained(folder, state_dict=state)

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self.model.quantize.embedding.weight.device

    @property
    def codebook_size(self) -> int:
        """Number of different codes; every code is in 0..codebook_size - 1."""
        return int(self.model.config.codebook_size)

    @property
    def embeddings(self) -> Tensor:
        """The codebook [codebook_size, width], to initialise a language model's visual embeddings."""
        return self.model.quantize.embedding.weight.detach()

    @property
    def factor(self) -> int:
        """Pixels of one side of the patch that a code stands for."""
        return 2 ** (len(self.model.config.channel_multiplier) - 1)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return (rows, cols) of the codes of an image of this size in pixels.

        Raises:
            ObservationError: a side is not a multiple of :attr:`factor`.
        """
        if height <= 0 or width <= 0 or height % self.factor or width % self.factor:
            raise ObservationError(
                f"an image of {height}x{width} (rows x columns) cannot be tokenised: both sides must be "
                f"multiples of {self.factor}; resize it first"
            )
        return height // self.factor, width // self.factor

    @torch.inference_mode()
    def encode(self, images: np.ndarray | Tensor, batch: int = 64) -> Tensor:
        """Return the codes of uint8 RGB images: [B, H, W, 3] -> long [B, rows, cols] on the CPU.

        Args:
            images: any number of images of one size.
            batch: how many of them go through the network together.

        Raises:
            ObservationError: wrong dtype, shape or size.
        """
        images = torch.as_tensor(images)
        if images.ndim != 4:
            to_pixels(images)  # raises with the one message for wrong shapes
        rows, cols = self.grid(*images.shape[1:3])
        parts = [torch.empty(0, rows, cols, dtype=torch.long)]
        for part in images.split(batch) if len(images) else ():
            found = latents(self.model, to_pixels(part).to(self.device, self.model.dtype))
            parts.append(self.model.quantize(found).squeeze(1).cpu())
        return torch.cat(parts)

    def encode_views(self, views: Mapping[str, np.ndarray | Tensor]) -> dict[str, Tensor]:
        """Return the codes of one image per view, in the views' order: uint8 [H, W, 3] -> long [rows, cols]."""
        codes = {}
        for name, image in views.items():
            try:
                codes[name] = self.encode(torch.as_tensor(image).unsqueeze(0))[0]
            except ObservationError as error:
                raise ObservationError(f"view '{name}': {error}") from error
        return codes

    @torch.inference_mode()
    def decode(self, codes: np.ndarray | Tensor, batch: int = 64) -> np.ndarray:
        """Return the images of codes: [B, rows, cols] -> uint8 [B, H, W, 3].

        Raises:
            TokenError: not a batch of grids of whole numbers, or a code outside the codebook.
        """
        codes = torch.as_tensor(codes)
        if codes.ndim != 3 or codes.is_floating_point():
            raise TokenError(f"codes must be whole numbers [B, rows, cols], not {codes.dtype} {list(codes.shape)}")
        if codes.numel() and (int(codes.min()) < 0 or int(codes.max()) >= self.codebook_size):
            raise TokenError(
                f"codes from {int(codes.min())} to {int(codes.max())} are outside the codebook of "
                f"{self.codebook_size}: subtract the token layout's visual offset first"
            )
        side = self.factor
        parts = [np.empty((0, codes.shape[1] * side, codes.shape[2] * side, 3), np.uint8)]
        for part in codes.split(batch) if len(codes) else ():
            parts.append(to_images(self.model.decode(part.long().to(self.device)).float()))
        return np.concatenate(parts)
