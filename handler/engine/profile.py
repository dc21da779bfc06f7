"""How the engine uses the device it finds, chosen once at the start and reported.

``choose_profile`` names a profile, ``handler.engine.start`` builds the engine by it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from handler.engine.compiled import CompiledUNet
from handler.engine.linear import is_linear
from handler.schedulers import make_scheduler
from handler.settings import Settings

if TYPE_CHECKING:
    from handler.model import Model

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Profile:
    """Goes into describe answers; ``vectorised`` and ``decode_thread`` are as in ``EngineOptions``."""

    name: str
    vectorised: bool
    decode_thread: bool
    lanes: int
    """Calls beside each other, one core each; 1: one call on all cores."""


def choose_profile(model: Model, settings: Settings) -> Profile:
    """Scheduler arithmetic in one product on a GPU and beside compiled code; decoding on a GPU's own stream.

    On an eager CPU diffusers' schedulers do the arithmetic, for the bits of StableDiffusionPipeline.
    """
    gpu, unet = model.device.type == "cuda", model.unet
    compiled = isinstance(unet, CompiledUNet)
    lanes = unet.lanes.count if isinstance(unet, CompiledUNet) and unet.lanes else 1
    linear = all(map(is_linear, map(partial(make_scheduler, template=model.scheduler), settings.schedulers)))
    if gpu and not linear:
        logger.warning(
            "a scheduler clips its pictures, so schedulers run row by row, which is slower on a GPU"
        )
    name = f"{'gpu' if gpu else 'cpu'} {'compiled' if compiled else 'eager'}"
    return Profile(name, (gpu or compiled) and linear, decode_thread=gpu, lanes=lanes)
