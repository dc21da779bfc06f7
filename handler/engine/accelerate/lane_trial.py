"""From how many rows on it pays to split a compiled call over lanes: tried once, where the code is compiled.

A small UNet gains from two rows on. A large one reads all its weights once in each lane: two rows of SD 1.5
in two lanes took 3.8 s on two cores, in one call 3.2 s.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Callable

import torch

from handler.engine.accelerate.compiled import LANES_FROM, CompiledUNet
from handler.engine.accelerate.lanes import Lanes

NO_UNET: Any = None
"""Compiled code takes all rows that are tried here, so the plain UNet is never called."""
TRIES = 3
MOST_TRIED = 16
"""Rows of the largest call that is tried: calls of a large UNet take seconds."""
ENOUGH_SECONDS = 1.0
"""A call that takes longer is timed once."""


def lanes_from(
    code: Callable[..., torch.Tensor], shapes: Mapping[str, int], rows: tuple[torch.Tensor, ...], lanes: Lanes
) -> int:
    """The fewest rows, two, four, eight, ..., that lanes take no longer for than one call; else one too many.

    ``rows``: samples, timesteps and texts, one row each or more; the first is repeated.
    """
    split = CompiledUNet(NO_UNET, code, {**shapes, LANES_FROM: 2}, lanes)
    whole = CompiledUNet(NO_UNET, code, {**shapes, LANES_FROM: shapes["rows"] + 1}, lanes)
    count = 2
    while count <= min(shapes["rows"], MOST_TRIED):
        part = [tensor[:1].expand(count, *tensor.shape[1:]).contiguous() for tensor in rows]
        if _seconds(split, part) <= _seconds(whole, part):
            return count
        count *= 2
    return shapes["rows"] + 1


def _seconds(unet: CompiledUNet, part: list[torch.Tensor]) -> float:
    """The shortest of a few calls after a first one, which reads the weights."""
    unet.predict(*part)
    times: list[float] = []
    while len(times) < TRIES and (not times or times[-1] < ENOUGH_SECONDS):
        started = time.perf_counter()
        unet.predict(*part)
        times.append(time.perf_counter() - started)
    return min(times)
