"""Pictures and masks that came with a request, as tensors and as latents."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from diffusers.image_processor import VaeImageProcessor

from handler.contract.job import Job
from handler.contract.source_picture import resized
from handler.model.model import Model

if TYPE_CHECKING:
    from handler.engine.accelerate.lanes import Lanes


class SourcePictures:
    """Reads a job's pictures as diffusers' pipelines do, and encodes them."""

    def __init__(self, model: Model) -> None:
        factor = model.latent_factor
        self._model = model
        self._lanes: Lanes | None = getattr(model.unet, "lanes", None)
        self._pictures = VaeImageProcessor(vae_scale_factor=factor)
        self._masks = VaeImageProcessor(
            vae_scale_factor=factor, do_normalize=False, do_binarize=True, do_convert_grayscale=True
        )

    def pixels(self, job: Job) -> torch.Tensor:
        """The source picture at the job's size: (1, 3, height, width) from -1 to 1, fp32, on the CPU."""
        assert job.image is not None
        pixels: torch.Tensor = self._pictures.preprocess(job.image.image, height=job.height, width=job.width)
        return pixels

    def mask(self, job: Job) -> torch.Tensor:
        """The mask at the job's size: (1, 1, height, width) of 0 and 1, fp32, on the CPU."""
        assert job.mask_image is not None
        mask: torch.Tensor = self._masks.preprocess(job.mask_image.image, height=job.height, width=job.width)
        return mask

    def encode(self, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Their latent, (1, channels, h, w), sampled from the autoencoder's distribution and scaled."""
        if self._lanes is None:
            return self._encode(pixels, generator)
        with self._lanes.all_cores():
            return self._encode(pixels, generator)

    def _encode(self, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        vae = self._model.vae
        (distribution,) = vae.encode(pixels.to(self._model.device, self._model.dtype), return_dict=False)
        latent: torch.Tensor = vae.config.scaling_factor * distribution.sample(generator)
        return latent


def fit_pictures(job: Job) -> Job:
    """The job with its pictures resized to its own size, as diffusers' ``VaeImageProcessor`` resizes them.

    A large picture so keeps neither memory nor the thread that steps; resized once more, it stays as it is.
    """
    if job.image is None:
        return job
    mask = job.mask_image and resized(job.mask_image, job.width, job.height)
    return replace(job, image=resized(job.image, job.width, job.height), mask_image=mask)
