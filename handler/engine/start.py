"""An engine for a loaded model: measured, planned, and bounded by the archive's settings."""

from __future__ import annotations

from dataclasses import replace

from handler.contract.settings import Settings
from handler.engine.accelerate.compiled import CompiledUNet
from handler.engine.engine import Engine
from handler.engine.memory.footprint import measure_footprint
from handler.engine.memory.plan import plan_memory
from handler.engine.options import EngineOptions
from handler.engine.profile import Profile
from handler.model.model import Model

MEASURED_PIXELS = 256
"""Side of the picture that is measured on a CPU, where the real size would take seconds."""


def start_engine(model: Model, settings: Settings, profile: Profile) -> Engine:
    """Measures the model once and makes its engine."""
    options = EngineOptions(
        max_live=settings.max_batch,
        max_queue=max_queue(settings),
        strict=settings.strict,
        vectorised=profile.vectorised,
        decode_thread=profile.decode_thread,
        max_steps=settings.limits.max_num_inference_steps,
    )
    most = 10**9 if model.device.type == "cuda" else MEASURED_PIXELS
    width, height = min(settings.defaults.width, most), min(settings.defaults.height, most)
    footprint = measure_footprint(model, width, height, options.history_columns if profile.vectorised else 5)
    if settings.strict and isinstance(model.unet, CompiledUNet):
        model = replace(model, unet=model.unet.with_even_parts())
    return Engine(model, options, plan_memory(model, footprint))


def max_queue(settings: Settings) -> int:
    """Jobs that may wait for a place.

    A plain batch has been taken from TorchServe already, so all of it must fit. Under continuous batching the
    engine sees at most ``batch_size`` requests: an eighth of them gets neither a live nor a waiting place and
    is answered 429 at once.
    """
    most = settings.limits.max_instances
    if not settings.continuous_batching:
        return settings.batch_size * most
    return max(most, settings.batch_size - settings.max_batch - max(1, settings.batch_size // 8))
