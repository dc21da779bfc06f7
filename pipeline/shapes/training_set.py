"""The training pictures: every caption equally often, each time at another place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.shapes.drawing import draw, random_placement
from pipeline.shapes.palette import all_captions

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch


@dataclass(frozen=True)
class Pictures:
    """``pixels`` (n, 3, 64, 64) uint8, and for each the index of its caption in all_captions()."""

    pixels: torch.Tensor
    captions: torch.Tensor


def draw_pictures(each: int, seed: int) -> Pictures:
    """Draw every caption ``each`` times."""
    import numpy as np
    import torch

    random = np.random.default_rng(seed)
    captions = all_captions() * each
    pixels = np.stack([draw(caption, random_placement(random)) for caption in captions])
    numbers = torch.arange(len(captions)) % len(all_captions())
    return Pictures(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), numbers)


def to_model_range(pixels: torch.Tensor) -> torch.Tensor:
    """Bytes 0 to 255 as the floats -1 to 1 that the autoencoder works in."""
    return pixels.float() / 127.5 - 1


def batches(count: int, size: int) -> Iterator[torch.Tensor]:
    """Endless index batches: all of ``count`` in a random order, then again in another."""
    import torch

    while True:
        for batch in torch.split(torch.randperm(count), size):
            if len(batch) == size:
                yield batch
