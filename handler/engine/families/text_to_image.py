"""Text to image: StableDiffusionPipeline."""

from __future__ import annotations

from typing import Any

import torch

from handler.contract.job import Job
from handler.engine.families.family import Start, first_noise, seeded
from handler.model.model import Model


class TextToImage:
    """Begins with noise alone."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def start(self, job: Job, scheduler: Any, dtype: torch.dtype) -> Start:
        model, generator = self._model, seeded(job)
        shape = (1, model.latent_channels, *model.latent_size(job.width, job.height))
        noise = first_noise(generator, shape, model.dtype).to(model.device, dtype)
        return Start(scheduler, noise * scheduler.init_noise_sigma, generator)
