"""How the engine uses the device it finds, chosen once at the start and reported.

This is the place for faster profiles (compiled UNet, fused projections): ``choose_profile`` names one,
``handler.engine.start`` builds the engine by it.
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
    """``name`` goes into describe answers; the rest are ``EngineOptions`` of the same names."""

    name: str
    vectorised: bool
    decode_thread: bool


def choose_profile(model: Model, settings: Settings) -> Profile:
    """On a GPU scheduler arithmetic in one product and decoding on its own stream; on a CPU neither."""
    gpu = model.device.type == "cuda"
    linear = all(map(is_linear, map(partial(make_scheduler, template=model.scheduler), settings.schedulers)))
    if gpu and not linear:
        logger.warning(
            "a scheduler clips its pictures, so schedulers run row by row, which is slower on a GPU"
        )
    kind = "compiled" if isinstance(model.unet, CompiledUNet) else "eager"
    return Profile(f"{'gpu' if gpu else 'cpu'} {kind}", vectorised=gpu and linear, decode_thread=gpu)
