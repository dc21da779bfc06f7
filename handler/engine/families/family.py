"""What diffusers' pipelines over one UNet do differently, and what they all do around the steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from diffusers.utils.torch_utils import randn_tensor

from handler.contract.job import Job
from handler.contract.rules import steps_left


@dataclass(frozen=True)
class Keep:
    """The part of a picture that inpainting leaves as it was: it is put back after every step.

    ``mask`` (1, 1, h, w) is 1 where the picture is drawn and 0 where it is kept; ``latent`` is the source
    picture's and ``noise`` the noise that it is mixed with, both (1, channels, h, w).
    """

    mask: torch.Tensor
    latent: torch.Tensor
    noise: torch.Tensor


@dataclass(frozen=True)
class Start:
    """An image before its first step: all that its generator draws until then, in the pipeline's order.

    ``scheduler`` is the image's own, its timesteps set. ``sample`` (1, channels, h, w) is noised and scaled.
    ``first`` is the index of the first timestep; None where the pipeline does not set one, as text to image,
    and the scheduler looks its beginning up. ``beside`` (1, more channels, h, w) is what the UNet sees beside
    the latent in every step.
    """

    scheduler: Any
    sample: torch.Tensor
    generator: torch.Generator
    first: int | None = None
    keep: Keep | None = None
    beside: torch.Tensor | None = None

    @property
    def timesteps(self) -> torch.Tensor:
        """Those that the image goes through."""
        timesteps: torch.Tensor = self.scheduler.timesteps[self.first or 0 :]
        return timesteps


class Family(Protocol):
    """One of diffusers' pipelines."""

    def start(self, job: Job, scheduler: Any, dtype: torch.dtype) -> Start:
        """Begins the job's image with a scheduler of its own, whose timesteps are set.

        Noise is drawn in the model's dtype, and everything else is calculated in ``dtype``, the sampler's.
        Raises torch.cuda.OutOfMemoryError, and what diffusers' schedulers raise.
        """


def first_noise(generator: torch.Generator, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Noise on the CPU, drawn as StableDiffusionPipeline.prepare_latents draws it for one image."""
    noise: torch.Tensor = randn_tensor(shape, generator=generator, device=torch.device("cpu"), dtype=dtype)
    return noise


def seeded(job: Job) -> torch.Generator:
    """The generator that all of an image's noise comes from."""
    return torch.Generator("cpu").manual_seed(job.seed)


def steps_of_strength(job: Job) -> int:
    """Steps that are left of ``num_inference_steps`` where a picture is changed with ``strength``.

    The same as diffusers' ``get_timesteps``. PNDM takes one step more, as everywhere.
    """
    if job.image is None:
        return job.num_inference_steps
    return steps_left(job.num_inference_steps, job.strength)


def begin(scheduler: Any, job: Job) -> int:
    """Sets the first timestep as diffusers' ``get_timesteps`` does by the strength; returns its index."""
    first = (job.num_inference_steps - steps_of_strength(job)) * int(scheduler.order)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    return first


def guide(negative: torch.Tensor, positive: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Predictions (rows, channels, h, w) steered by classifier-free guidance, each with its own scale."""
    # fp32 scales lift the sum to fp32, where the plain pipeline rounds to the model's dtype.
    return negative + scales.view(-1, 1, 1, 1) * (positive - negative)
