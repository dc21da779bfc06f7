"""The small request of our own that every door answers before it says that it is ready."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from handler.contract.fields import WHITE_PIXEL
from handler.contract.settings import Settings

STEPS = 2


def warm_up_instance(settings: Settings, families: Sequence[str]) -> Mapping[str, Any]:
    """An instance of the archive's default size that is drawn in few steps.

    ``families`` are those that the model draws: one for inpainting alone is asked to paint a white picture.
    """
    defaults = settings.defaults
    instance = {
        "prompt": "warm-up"[: settings.limits.max_prompt_characters],
        "num_inference_steps": min(STEPS, defaults.num_inference_steps),
        "seed": 0,
    }
    if "text_to_image" in families:
        return instance
    size = {"width": defaults.width, "height": defaults.height}
    return {**instance, **size, "image": WHITE_PIXEL, "mask_image": WHITE_PIXEL}
