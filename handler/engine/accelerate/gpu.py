"""What a GPU gets at the start: fused projections, and CUDA graphs for the archive's default size.

No line of this file runs without a GPU; what can be tested without one is in ``fused`` and ``graphs``.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, Callable

import torch

from handler.contract.settings import Settings
from handler.engine.accelerate.compiled import CompiledUNet
from handler.engine.accelerate.fused import fuse_projections
from handler.engine.accelerate.graphs import GraphedUNet, Rows, buckets, prove
from handler.model.model import Model, UNet

logger = logging.getLogger(__name__)

MOST_ROWS = 32
"""A larger call keeps a GPU busy for longer than its launches take, and its padding would cost."""
POOL_SHARE = 0.25
"""What graphs may hold of the memory that is free before them."""


def tune_for_gpu(model: Model, settings: Settings) -> Model:
    """The model as a GPU runs it fastest, its UNet and autoencoder changed in place; on a CPU as it is.

    Compiled code has its own projections, and AOTInductor records events that a capture cannot hold: it stays
    as it is, too. Call this before another thread uses the device, or the captures fail.
    """
    if model.device.type != "cuda" or isinstance(model.unet, CompiledUNet):
        return model
    fuse_projections(model)
    counts = _row_counts(settings)
    return model if not counts or model.guidance_width is not None else _with_graphs(model, settings, counts)


def _row_counts(settings: Settings) -> list[int]:
    """Strict mode has one row count, which gets a graph or none does."""
    most = 2 * settings.most_places
    if settings.strict:
        return [most] if most <= MOST_ROWS else []
    return buckets(min(most, MOST_ROWS))


def _with_graphs(model: Model, settings: Settings, counts: list[int]) -> Model:
    with torch.cuda.device(model.device), torch.inference_mode():
        torch.cuda.empty_cache()
        before, (free, _) = torch.cuda.memory_reserved(), torch.cuda.mem_get_info()
        example = _example(model, settings, max(counts))
        unet = prove(model.unet, example, counts, GraphCapture(model.unet, example))
        torch.cuda.empty_cache()
        if isinstance(unet, GraphedUNet):
            unet.held_bytes = max(0, torch.cuda.memory_reserved() - before)
            if unet.held_bytes > POOL_SHARE * free:
                logger.warning("no CUDA graphs: they would hold %d of %d free bytes", unet.held_bytes, free)
                return model
    return replace(model, unet=unet)


def _example(model: Model, settings: Settings, count: int) -> Rows:
    """Inputs of ``count`` rows of the default size."""
    size = model.latent_size(settings.defaults.width, settings.defaults.height)
    like: dict[str, Any] = {"device": model.device, "dtype": model.dtype}
    return (
        torch.randn(count, model.unet_channels, *size, **like),
        torch.full((count,), 500.0, device=model.device),
        torch.randn(count, *model.text_shape, **like),
    )


class GraphCapture:
    """Captures calls of ``unet`` on the first rows of ``inputs``, which every replay overwrites.

    All graphs share a pool: they run one after another, and what they return is copied before the next.
    """

    def __init__(self, unet: UNet, inputs: Rows) -> None:
        self._unet, self._inputs = unet, [tensor.clone() for tensor in inputs]
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, count: int) -> Callable[..., torch.Tensor]:
        """Raises RuntimeError where the call cannot be captured or memory runs out."""
        buffers = [tensor[:count] for tensor in self._inputs]
        # Libraries make their handles and choose their kernels at a first call, which cannot be captured.
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._call(buffers)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            output = self._call(buffers)

        def replay(*rows: torch.Tensor) -> torch.Tensor:
            for buffer, given in zip(buffers, rows):
                buffer.copy_(given)
            graph.replay()
            return output

        return replay

    def _call(self, rows: Rows) -> torch.Tensor:
        sample, times, texts = rows
        return self._unet(sample, times, texts, return_dict=False)[0]
