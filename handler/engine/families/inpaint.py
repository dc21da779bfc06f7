"""Inpainting: StableDiffusionInpaintPipeline, with the UNet of text to image or with one of its own."""

from __future__ import annotations

from typing import Any

import torch

from handler.contract.job import Job
from handler.engine.families.family import Keep, Start, begin, first_noise, seeded
from handler.engine.families.pictures import SourcePictures
from handler.model.model import Model


class Inpaint:
    """Draws inside the mask with the UNet of text to image; the rest is put back after every step."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._pictures = SourcePictures(model)

    def start(self, job: Job, scheduler: Any, dtype: torch.dtype) -> Start:
        generator, first = seeded(job), begin(scheduler, job)
        latent = self._latent(job, generator, dtype)
        noise = self._noise(job, generator).to(self._model.device, dtype)
        sample = _sample(job, scheduler, first, latent, noise)
        # The pipeline encodes the masked picture, too, and uses nothing of it here but what it draws for it.
        self._noise(job, generator)
        mask = self._mask(self._pictures.mask(job), dtype)
        return Start(scheduler, sample, generator, first, Keep(mask, latent, noise))

    def _latent(self, job: Job, generator: torch.Generator, dtype: torch.dtype) -> torch.Tensor:
        latent = self._pictures.encode(self._pictures.pixels(job), generator)
        # Contiguous like the pipeline's, which repeats it: a convolution's last bits depend on the strides.
        return latent.repeat(1, 1, 1, 1).to(dtype)

    def _noise(self, job: Job, generator: torch.Generator) -> torch.Tensor:
        model = self._model
        shape = (1, model.latent_channels, *model.latent_size(job.width, job.height))
        return first_noise(generator, shape, model.dtype)

    def _mask(self, mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """The mask at the latent's size; its pixels are picked, not mixed, so it stays 0 and 1."""
        height, width = mask.shape[-2:]
        small = torch.nn.functional.interpolate(mask, size=self._model.latent_size(width, height))
        return small.to(self._model.device, dtype)


class InpaintBeside(Inpaint):
    """Draws with a UNet that sees the mask and the masked picture beside the latent, and keeps nothing."""

    def start(self, job: Job, scheduler: Any, dtype: torch.dtype) -> Start:
        model, generator, first = self._model, seeded(job), begin(scheduler, job)
        latent = self._latent(job, generator, dtype) if job.strength < 1 else None
        noise = self._noise(job, generator).to(model.device, dtype)
        sample = _sample(job, scheduler, first, latent, noise)
        mask = self._pictures.mask(job)
        masked = self._pictures.encode(self._pictures.pixels(job) * (mask < 0.5), generator)
        beside = torch.cat([self._mask(mask, model.dtype), masked], dim=1)
        return Start(scheduler, sample, generator, first, beside=beside)


def _sample(
    job: Job, scheduler: Any, first: int, latent: torch.Tensor | None, noise: torch.Tensor
) -> torch.Tensor:
    """The first sample: noise alone where nothing of the picture is to show through."""
    if latent is None or job.strength == 1:
        pure: torch.Tensor = noise * scheduler.init_noise_sigma
        return pure
    mixed: torch.Tensor = scheduler.add_noise(latent, noise, scheduler.timesteps[first : first + 1])
    return mixed
