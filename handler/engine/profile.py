"""How the engine uses the device it finds, chosen once at the start and reported.

``choose_profile`` names a profile, ``handler.engine.start`` builds the engine by it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial

import torch

from handler.contract.settings import Settings
from handler.engine.accelerate.compiled import CompiledUNet
from handler.engine.accelerate.fused import is_fused
from handler.engine.accelerate.graphs import GraphedUNet
from handler.engine.coefficients import is_linear
from handler.model.model import Model
from handler.model.schedulers import make_scheduler

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Profile:
    """Goes into describe answers; ``vectorised`` and ``decode_thread`` are as in ``EngineOptions``."""

    name: str
    vectorised: bool
    decode_thread: bool
    lanes: int
    """Calls beside each other, one core each; 1: one call on all cores."""
    attention: str
    """``sdpa``, torch's fused attention, or ``plain`` where this torch has none: diffusers' own choice."""
    channels_last: bool
    fused_qkv: bool
    """Attention's projections are one product (``handler.engine.accelerate.fused``)."""
    graph_rows: tuple[int, ...]
    """Row counts of the UNet that have a CUDA graph; none: every call launches its kernels."""


def choose_profile(model: Model, settings: Settings) -> Profile:
    """Scheduler arithmetic in one product on a GPU and beside compiled code; decoding on a GPU's own stream.

    On an eager CPU diffusers' schedulers do the arithmetic, for the bits of StableDiffusionPipeline. The rest
    reports what ``handler.model.load`` and ``handler.engine.accelerate.gpu`` have made of the model.
    """
    gpu, unet = model.device.type == "cuda", model.unet
    compiled = isinstance(unet, CompiledUNet)
    lanes = unet.lanes.count if isinstance(unet, CompiledUNet) and unet.lanes else 1
    linear = all(map(is_linear, map(partial(make_scheduler, template=model.scheduler), settings.schedulers)))
    if gpu and not linear:
        logger.warning(
            "a scheduler clips its pictures, so schedulers run row by row, which is slower on a GPU"
        )
    graphs = tuple(unet.row_counts) if isinstance(unet, GraphedUNet) else ()
    kind = "compiled" if compiled else "graphs" if graphs else "eager"
    return Profile(
        name=f"{'gpu' if gpu else 'cpu'} {kind}",
        vectorised=(gpu or compiled) and linear,
        decode_thread=gpu,
        lanes=lanes,
        attention="sdpa" if hasattr(torch.nn.functional, "scaled_dot_product_attention") else "plain",
        channels_last=model.channels_last,
        fused_qkv=not compiled and is_fused(getattr(unet, "plain", unet)),
        graph_rows=graphs,
    )
