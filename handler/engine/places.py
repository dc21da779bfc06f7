"""How many pictures are drawn together where model-config.yaml says ``max_batch: auto``.

While cores or a GPU are left idle, a step of twice the pictures takes less than twice as long. The knee is
where more pictures a step give hardly more pictures a second, only longer steps for those that wait.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Callable

import torch

from handler.contract.settings import MOST_PLACES, Settings
from handler.engine.memory.plan import MemoryPlan
from handler.model.model import Model

logger = logging.getLogger(__name__)

KNEE = 0.9
"""The places chosen give at least this share of the best pictures per second that were seen."""
SLOW_STEP_SECONDS = 0.5
"""No step that takes longer is measured: the start would take minutes, and one row fills the cores anyhow."""
MOST_STEPS = 10
"""All that is measured takes at most so many times the longest step in it."""


@dataclass(frozen=True)
class Places:
    """``count`` pictures drawn together; ``batch_curve``: milliseconds of a UNet call by its rows.

    The curve is empty where nothing was measured.
    """

    count: int
    batch_curve: Mapping[int, float] = field(default_factory=dict)


def choose_places(model: Model, settings: Settings, plan: MemoryPlan) -> Places:
    """The archive's own number, or the knee of the curve measured here; memory bounds what is measured.

    Where one step is slow (``SLOW_STEP_SECONDS``) it is ``settings.places``, as in strict mode, whose
    replicas must agree.
    """
    if settings.fixed_places:
        return Places(settings.places)
    rows = 2 if settings.defaults.guidance_scale > 1 and model.guidance_width is None else 1
    most = min(MOST_PLACES, plan.places(settings.defaults.width * settings.defaults.height))
    with torch.inference_mode():
        curve = measure_curve(partial(_call_seconds, _UNetCalls(model, settings)), rows * most)
    return Places(
        knee(curve, rows) or min(settings.places, most),
        {count: round(1000 * seconds, 1) for count, seconds in curve.items()},
    )


def measure_curve(seconds_of: Callable[[int], float], most_rows: int) -> dict[int, float]:
    """Seconds of a call of 1, 2, 4, ... rows, up to ``most_rows``; fewer where calls are slow.

    A row count that seems slower per row than half of it is tried once more: something else ran meanwhile.
    """
    curve: dict[int, float] = {}
    spent = longest = seconds_of(1)  # this call also chooses kernels and reads the weights
    rows, next_at_most = 1, longest
    while rows <= most_rows and next_at_most <= SLOW_STEP_SECONDS and spent + longest <= MOST_STEPS * longest:
        try:
            seconds = seconds_of(rows)
            spent += seconds
            if seconds > 2 * curve.get(rows // 2, seconds):
                spent += (again := seconds_of(rows))
                seconds = min(seconds, again)
        except torch.cuda.OutOfMemoryError:
            logger.warning("max_batch: the device has no memory for %d rows; fewer are tried", rows)
            break
        curve[rows], longest, next_at_most = seconds, max(longest, seconds), 2 * seconds
        rows *= 2
    return curve


def knee(curve: Mapping[int, float], rows_per_picture: int) -> int | None:
    """The fewest pictures that give ``KNEE`` of the best pictures per second; None without a fast step.

    ``curve``: seconds by rows; with guidance a picture takes two rows.
    """
    rates = {
        rows // rows_per_picture: rows / seconds
        for rows, seconds in sorted(curve.items())
        if rows >= rows_per_picture and seconds <= SLOW_STEP_SECONDS
    }
    return next((count for count, rate in rates.items() if rate >= KNEE * max(rates.values())), None)


class _UNetCalls:
    """Calls of the model's UNet with random rows of the archive's default size."""

    def __init__(self, model: Model, settings: Settings) -> None:
        self._model = model
        self._size = model.latent_size(settings.defaults.width, settings.defaults.height)

    def __call__(self, rows: int) -> None:
        model = self._model
        sample = torch.randn(rows, model.unet_channels, *self._size).to(model.device, model.dtype)
        texts = torch.randn(rows, *model.text_shape).to(model.device, model.dtype)
        width = model.guidance_width
        condition = None if width is None else texts.new_zeros(rows, width)
        times = torch.full((rows,), 500.0, device=model.device)
        model.unet(sample, times, encoder_hidden_states=texts, timestep_cond=condition, return_dict=False)
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)


def _call_seconds(call: Callable[[int], None], rows: int) -> float:
    started = time.perf_counter()
    call(rows)
    return time.perf_counter() - started
