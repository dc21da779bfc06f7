"""Which families a model serves: its UNet's input channels say so."""

from __future__ import annotations

from typing import Any

import torch

from handler.contract.job import Failure, Job
from handler.contract.rules import no_step_left
from handler.engine.families.family import Family, Start
from handler.engine.families.image_to_image import ImageToImage
from handler.engine.families.inpaint import Inpaint, InpaintBeside
from handler.engine.families.text_to_image import TextToImage
from handler.model.model import Model

SPOKEN = {"text_to_image": "text to image", "image_to_image": "image to image", "inpaint": "inpainting"}
"""The families by the names in ``Job.family``."""
ASKED_FOR = {
    "text_to_image": "send no image",
    "image_to_image": "send image and no mask_image",
    "inpaint": "send image and mask_image",
}
"""How a request asks for each."""


def served_families(model: Model) -> tuple[str, ...]:
    """The names of the families that the model can draw; a UNet for inpainting can do nothing else."""
    return ("inpaint",) if model.sees_masked_picture else tuple(SPOKEN)


class Families:
    """The families of one model, by name."""

    def __init__(self, model: Model) -> None:
        made: dict[str, Family] = {
            "text_to_image": TextToImage(model),
            "image_to_image": ImageToImage(model),
            "inpaint": InpaintBeside(model) if model.sees_masked_picture else Inpaint(model),
        }
        self._served = {name: made[name] for name in served_families(model)}

    def check(self, job: Job) -> Failure | None:
        """The 400 of a job that this model cannot draw, or that its strength leaves no step for."""
        if job.family not in self._served:
            others = "; ".join(f"for {SPOKEN[name]} {ASKED_FOR[name]}" for name in self._served)
            message = f"This model does not serve {SPOKEN[job.family]}: {others}."
            return Failure(400, "invalid_request", message)
        reason = None if job.image is None else no_step_left(job.num_inference_steps, job.strength)
        return None if reason is None else Failure(400, "invalid_request", reason)

    def start(self, job: Job, scheduler: Any, dtype: torch.dtype) -> Start:
        """As ``Family.start``, by the job's family."""
        return self._served[job.family].start(job, scheduler, dtype)
