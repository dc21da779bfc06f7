"""An engine for a loaded model: measured, planned, and bounded by the archive's settings."""

from __future__ import annotations

from dataclasses import dataclass, replace

from handler.contract.safety import DEFAULT_SAFETY
from handler.contract.settings import MOST_PLACES, Settings
from handler.engine.accelerate.compiled import CompiledUNet
from handler.engine.engine import Engine
from handler.engine.memory.footprint import measure_footprint
from handler.engine.memory.plan import plan_memory
from handler.engine.options import EngineOptions
from handler.engine.places import Places, choose_places
from handler.engine.profile import Profile
from handler.model.model import Model

MEASURED_PIXELS = 256
"""Side of the picture that is measured on a CPU, where the real size would take seconds."""


@dataclass(frozen=True)
class Started:
    """An engine, and how its places were chosen."""

    engine: Engine
    places: Places


def start_engine(model: Model, settings: Settings, profile: Profile) -> Started:
    """Measures the model once and makes its engine."""
    options = EngineOptions(
        strict=settings.strict,
        vectorised=profile.vectorised,
        decode_thread=profile.decode_thread,
        max_steps=settings.limits.max_num_inference_steps,
        safety=settings.safety or DEFAULT_SAFETY,
    )
    most = 10**9 if model.device.type == "cuda" else MEASURED_PIXELS
    width, height = min(settings.defaults.width, most), min(settings.defaults.height, most)
    footprint = measure_footprint(model, width, height, options.history_columns if profile.vectorised else 5)
    if settings.strict and isinstance(model.unet, CompiledUNet):
        model = replace(model, unet=model.unet.with_even_parts())
    plan = plan_memory(model, footprint)
    places = choose_places(model, settings, plan)
    options = replace(options, max_live=places.count, max_queue=max_queue(settings, places.count))
    return Started(Engine(model, options, plan), places)


def max_queue(settings: Settings, places: int) -> int:
    """Jobs that may wait for one of the ``places``.

    A plain batch has been taken from TorchServe already, so all of it must fit. Under continuous batching the
    engine sees at most ``batch_size`` requests: an eighth of them gets neither a live nor a waiting place and
    is answered 429 at once. Where the places were measured, ``batch_size`` has room for the most that there
    may be; fewer places have their share of it, so that nobody waits longer for them.
    """
    most = settings.limits.max_instances
    if not settings.continuous_batching:
        return settings.batch_size * most
    requests = settings.batch_size
    if not settings.fixed_places:
        requests = requests * min(places, MOST_PLACES) // MOST_PLACES
    return max(most, requests - places - max(1, requests // 8))
