"""CUDA graphs of the UNet for fixed row counts: one launch a step instead of a thousand small ones.

What calls are for which rows is kept apart from capturing them (``gpu``), so that buckets,
padding and the fallback are tested without a GPU.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Callable

import torch

from handler.engine.accelerate.accelerated_unet import AcceleratedUNet
from handler.engine.denoiser import pad_rows
from handler.model.model import UNet

logger = logging.getLogger(__name__)

Rows = Sequence["torch.Tensor"]
"""Samples (rows, 4, height, width), timesteps (rows,) and texts (rows, tokens, width)."""
Capture = Callable[[int], Callable[..., "torch.Tensor"]]
"""From a row count to a call of the UNet with ``Rows`` of it, whose result the next call may overwrite."""

TOLERANCE = {"float32": 1e-3, "float16": 1e-2, "bfloat16": 5e-2}
"""How far a replay may be from the plain UNet, over its largest value: other row counts, other kernels."""


def buckets(most: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12, ... and ``most``: at most half as many rows again are padded."""
    sizes = {size for power in range(most.bit_length()) for size in (2**power, 3 * 2**power)}
    return sorted({size for size in sizes if size < most} | {most})


class GraphedUNet(AcceleratedUNet):
    """Takes the size it was captured for, up to the largest row count."""

    def __init__(self, plain: UNet, example: Rows, row_counts: Sequence[int], capture: Capture) -> None:
        super().__init__(plain)
        self.held_bytes = 0
        """Memory of the graphs, in which nothing else can be allocated."""
        self._shapes = [tensor.shape[1:] for tensor in example]
        # The largest first: the others find their memory in its pool.
        self._calls = {count: capture(count) for count in sorted(row_counts, reverse=True)}

    @property
    def row_counts(self) -> list[int]:
        return sorted(self._calls)

    def takes(self, sample: torch.Tensor, times: torch.Tensor, texts: torch.Tensor) -> bool:
        shapes = [tensor.shape[1:] for tensor in (sample, times, texts)]
        return len(sample) <= max(self._calls) and shapes == self._shapes

    def predict(self, sample: torch.Tensor, times: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        count = min(count for count in self._calls if count >= len(sample))
        output = self._calls[count](*(pad_rows(tensor, count) for tensor in (sample, times, texts)))
        return output[: len(sample)].clone()


def prove(plain: UNet, example: Rows, row_counts: Sequence[int], capture: Capture) -> UNet:
    """A GraphedUNet that has drawn what ``plain`` draws, or ``plain`` and one line in the log."""
    try:
        graphed = GraphedUNet(plain, example, row_counts, capture)
        wrong = [count for count in row_counts if not _agrees(graphed, plain, example, count)]
    except RuntimeError as error:
        logger.warning("no CUDA graphs: %s", str(error).partition("\n")[0])
        return plain
    if wrong:
        logger.warning("no CUDA graphs: with %s rows they differ from the plain UNet", wrong)
        return plain
    return graphed


def _agrees(graphed: GraphedUNet, plain: UNet, example: Rows, count: int) -> bool:
    """Whether random rows come out the same; not the rows that were captured."""
    sample, times, texts = (tensor[:count] for tensor in example)
    sample = torch.randn_like(sample)
    texts = torch.randn_like(texts)
    wanted = plain(sample, times / 2, texts, return_dict=False)[0].float()
    drawn = graphed(sample, times / 2, texts)[0].float()
    bound = TOLERANCE[str(sample.dtype).rpartition(".")[2]] * wanted.abs().max()
    return bool((drawn - wanted).abs().max() <= bound)
