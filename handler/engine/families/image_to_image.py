"""Image to image: StableDiffusionImg2ImgPipeline."""

from __future__ import annotations

from typing import Any

import torch

from handler.contract.job import Job
from handler.engine.families.family import Start, begin, first_noise, seeded
from handler.engine.families.pictures import SourcePictures
from handler.model.model import Model


class ImageToImage:
    """Begins with the source picture under noise, at a later timestep the less its strength is."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._pictures = SourcePictures(model)

    def start(self, job: Job, scheduler: Any, dtype: torch.dtype) -> Start:
        model, generator = self._model, seeded(job)
        first = begin(scheduler, job)
        latent = self._pictures.encode(self._pictures.pixels(job), generator).to(dtype)
        noise = first_noise(generator, tuple(latent.shape), model.dtype).to(model.device, dtype)
        sample = scheduler.add_noise(latent, noise, scheduler.timesteps[first : first + 1])
        return Start(scheduler, sample, generator, first)
