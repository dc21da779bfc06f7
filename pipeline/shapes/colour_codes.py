"""Teaching the autoencoder eight codes for the eight colours, and its decoder to forgive strong latents.

Guidance makes latents stronger than the encoder ever does. So the plain cells of each colour move to a corner
of a four-dimensional cube, whose corners' mean is zero, and half of the latents that the decoder learns from
are one to four times as strong as they should be: it learns to look at their direction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.shapes.drawing import SIZE, draw_mask, random_placement
from pipeline.shapes.palette import COLOURS, SHAPES
from pipeline.shapes.placements import small_placement

if TYPE_CHECKING:
    import numpy as np
    import torch

    from pipeline.shapes.networks import Autoencoder
    from pipeline.shapes.schedule import Schedule
    from pipeline.shapes.train_autoencoder import Report

# Corners with an even number of minus signs. Of all assignments this one was the nearest to what the first
# stage had learned for plain pictures.
CODES = {
    "red": (1, -1, -1, 1),
    "green": (1, 1, -1, -1),
    "blue": (-1, 1, -1, 1),
    "yellow": (-1, -1, 1, 1),
    "purple": (-1, 1, 1, -1),
    "orange": (1, -1, 1, -1),
    "white": (-1, -1, -1, -1),
    "black": (1, 1, 1, 1),
}
_CELL = 8  # pixels of a side that one cell of the latent stands for
_SMALL = 0.3  # share of pictures with a small shape
_STRONGEST = 4.0
_CODE_WEIGHT, _KL_WEIGHT = 0.1, 5e-6


def palette() -> torch.Tensor:
    """The eight colours (8, 3) as the autoencoder sees them, -1 to 1."""
    import torch

    return torch.tensor(list(COLOURS.values())).float() / 127.5 - 1


def mix(cover: torch.Tensor, front: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
    """Pictures (n, 3, 64, 64): ``cover`` (n, 1, 64, 64) of the colours numbered ``front`` over ``back``."""
    colours = palette()
    return cover * colours[front][..., None, None] + (1 - cover) * colours[back][..., None, None]


def draw_coded(count: int, random: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pictures, and for their latents the wanted code (n, 4, 8, 8) and where there is one (n, 1, 8, 8)."""
    import numpy as np
    import torch

    masks, pairs = [], []
    for _ in range(count):
        shape = SHAPES[random.integers(len(SHAPES))]
        place = small_placement(random) if random.random() < _SMALL else random_placement(random)
        masks.append(draw_mask(shape, place))
        pairs.append(random.choice(len(COLOURS), 2, replace=False))
    cover = torch.from_numpy(np.stack(masks))[:, None]
    front, back = torch.from_numpy(np.stack(pairs)).T
    cells = cover.view(count, 1, SIZE // _CELL, _CELL, SIZE // _CELL, _CELL)
    full, empty = (cells.amin((3, 5)) >= 1).float(), (cells.amax((3, 5)) <= 0).float()
    codes = torch.tensor([CODES[name] for name in COLOURS]).float()[..., None, None]
    return mix(cover, front, back), full * codes[front] + empty * codes[back], full + empty


def teach_codes(vae: Autoencoder, schedule: Schedule, report: Report) -> None:
    """Train encoder and decoder on pictures drawn from a fixed seed."""
    import numpy as np
    import torch

    random = np.random.default_rng(0)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=schedule.rate, betas=(0.9, 0.99), weight_decay=0)
    pacer = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule.factor)
    for step in range(schedule.steps):
        pixels, codes, plain = draw_coded(schedule.batch, random)
        seen = vae.encode(pixels).latent_dist
        sample = seen.sample()
        missed = vae.decode(sample * _strengths(len(pixels))).sample - pixels
        loss = missed.abs().mean() + missed.square().mean() + _KL_WEIGHT * seen.kl().mean()
        loss = loss + _CODE_WEIGHT * ((seen.mean - codes).square() * plain).sum() / plain.sum() / 4
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        pacer.step()
        optimizer.zero_grad()
        report(step, loss.item())


def _strengths(count: int) -> torch.Tensor:
    """One for the odd rows, one to _STRONGEST for the even ones: (n, 1, 1, 1)."""
    import torch

    factors = torch.ones(count)
    factors[::2] = 1 + (_STRONGEST - 1) * torch.rand((count + 1) // 2)
    return factors.view(count, 1, 1, 1)
