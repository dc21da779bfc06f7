"""A loaded model, and the numbers about its shapes that the rest of the handler needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from transformers import CLIPTextModel, CLIPTokenizer

from handler.model.dtype_probe import DtypeProbe

if TYPE_CHECKING:
    from handler.model.loras import Lora
    from handler.model.safety_checker import SafetyChecker


class Size(NamedTuple):
    """Rows and columns of a latent: pixels divided by ``Model.latent_factor``."""

    height: int
    width: int


class UNet(Protocol):
    """Predicts noise: diffusers' ``UNet2DConditionModel``, or a faster way to call it."""

    @property
    def config(self) -> Any:
        """diffusers' configuration of the class, by attribute and by key."""

    def __call__(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float,
        encoder_hidden_states: torch.Tensor,
        *,
        timestep_cond: torch.Tensor | None = None,
        return_dict: bool = False,
    ) -> tuple[torch.Tensor, ...]:
        """From (rows, channels, height, width) to a tuple with a tensor of the latent's channels."""


class Autoencoder(Protocol):
    """Makes pixels of latents and latents of pixels: diffusers' ``AutoencoderKL``."""

    @property
    def config(self) -> Any:
        """diffusers' configuration of the class."""

    @property
    def dtype(self) -> torch.dtype:
        """What its weights are kept in."""

    def decode(self, z: torch.Tensor, return_dict: bool = True) -> tuple[torch.Tensor, ...]:
        """From (rows, channels, height, width) to a tuple with pixels from -1 to 1."""

    def encode(self, x: torch.Tensor, return_dict: bool = True) -> tuple[Any, ...]:
        """From pixels to a tuple with the distribution of their latents."""


def inpainting_channels(latent_channels: int) -> int:
    """Channels that a UNet for inpainting takes: the latent, the mask, the masked picture's latent."""
    return 2 * latent_channels + 1


@dataclass(frozen=True)
class Model:
    """A loaded Stable Diffusion pipeline, part by part, in eval mode on ``device`` in ``dtype``.

    ``scheduler`` is the template that ``make_scheduler`` takes the noise schedule from.
    """

    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    unet: UNet
    vae: Autoencoder
    scheduler: Any  # one of diffusers' scheduler classes, which share no typed interface
    device: torch.device
    dtype: torch.dtype
    channels_last: bool
    weights_digest: str
    dtype_probe: DtypeProbe | None = None
    """The rates that chose ``dtype``; None where nothing was measured."""
    loras: Mapping[str, Lora] = field(default_factory=dict)
    """The archive's LoRAs by name."""
    safety_checker: SafetyChecker | None = None

    @property
    def latent_factor(self) -> int:
        """Pixels per row or column of a latent: the autoencoder halves after each block but the last."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    def latent_size(self, width: int, height: int) -> Size:
        """The latent of a picture of so many pixels."""
        return Size(height // self.latent_factor, width // self.latent_factor)

    @property
    def latent_channels(self) -> int:
        """Channels of a latent, which the UNet predicts. One for inpainting takes more than these."""
        return int(self.vae.config.latent_channels)

    @property
    def unet_channels(self) -> int:
        """Channels that the UNet takes: a latent's, and for inpainting the mask and the masked latent."""
        return int(self.unet.config.in_channels)

    @property
    def sees_masked_picture(self) -> bool:
        """Whether the UNet takes the mask and the masked picture's latent beside the latent."""
        return self.unet_channels == inpainting_channels(self.latent_channels)

    @property
    def text_shape(self) -> tuple[int, int]:
        """An encoded text: tokens, to which every prompt is padded, and their width."""
        return self.tokenizer.model_max_length, int(self.unet.config.cross_attention_dim)

    @property
    def guidance_width(self) -> int | None:
        """Width of the guidance embedding where guidance is an input of the UNet (LCM), else None."""
        width = getattr(self.unet.config, "time_cond_proj_dim", None)
        return None if width is None else int(width)
