"""Latents of every caption at the same places, so that one picture can be changed into another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.shapes.colour_codes import mix, palette
from pipeline.shapes.drawing import Placement, draw_mask
from pipeline.shapes.palette import COLOURS, SHAPES, all_captions
from pipeline.shapes.placements import Places

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from pipeline.shapes.networks import Autoencoder

_NAMES = list(COLOURS)
FRONT = [_NAMES.index(caption.foreground) for caption in all_captions()]
BACK = [_NAMES.index(caption.background) for caption in all_captions()]


@dataclass(frozen=True)
class PlacedLatents:
    """Scaled: ``shapes`` (captions, places, 4, 8, 8), and ``plain`` (colours, 4, 8, 8) without a shape."""

    shapes: torch.Tensor
    plain: torch.Tensor
    places: Places


def encode_places(vae: Autoencoder, places: Places, drawn: Sequence[Placement]) -> PlacedLatents:
    """Draw and encode all; stores ``scaling_factor`` = 1 / standard deviation of the latents in ``vae``."""
    import torch

    front, back = torch.tensor(FRONT), torch.tensor(BACK)
    latents = torch.empty(len(front), len(drawn), 4, 8, 8)
    with torch.no_grad():
        for number, place in enumerate(drawn):
            pictures = mix(_covers(place), front, back)
            parts = [vae.encode(part).latent_dist.mean for part in torch.split(pictures, 32)]
            latents[:, number] = torch.cat(parts)
        plain = vae.encode(palette()[..., None, None].expand(-1, -1, 64, 64)).latent_dist.mean
    factor = 1 / float(latents.std())
    vae.register_to_config(scaling_factor=factor)
    return PlacedLatents(latents.mul_(factor), plain * factor, places)


def _covers(place: Placement) -> torch.Tensor:
    """The shape of every caption at one place: (captions, 1, 64, 64)."""
    import torch

    masks = {shape: torch.from_numpy(draw_mask(shape, place).copy()) for shape in SHAPES}
    return torch.stack([masks[caption.shape] for caption in all_captions()])[:, None]
