"""What a scheduler does to an image, as numbers: every sampler here is linear.

After i steps an image's latent is a fixed linear combination of its first sample, of the UNet's predictions
so far and, for the ancestral samplers, of the noise added on the way: x_i = sum over k of C[i, k] . h_k. The
coefficients C belong to the scheduler, its step count and its first timestep alone. ``probe`` reads them off
diffusers' own scheduler by running it on unit vectors, so there is no formula here that could differ from
diffusers'.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch

from handler.contract.job import Job
from handler.engine.families.family import first_noise
from handler.engine.sampler import MakeScheduler, TimestepPlan, step_arguments

SPARES = 8
MOST_PLANS = 256
"""Tables of coefficients kept: one of 100 steps is 80 KB, and every strength of a picture has its own."""


@dataclass(frozen=True)
class LinearTimestepPlan(TimestepPlan):
    """A scheduler at a step count from a first timestep on, as numbers.

    ``coefficients[i]`` makes the latent after step i from the columns of an image's history: column 0 is the
    first sample, then two per step, the UNet's prediction and the noise drawn (one where none is ever drawn).
    ``kept[i]`` are the shares of latent and noise in the part that inpainting puts back after step i; none
    for text to image.
    """

    input_scales: tuple[float, ...]
    draws: tuple[bool, ...]
    coefficients: torch.Tensor
    kept: tuple[tuple[float, float], ...]

    @property
    def columns(self) -> int:
        return int(self.coefficients.shape[1])

    @property
    def stride(self) -> int:
        return 2 if any(self.draws) else 1


def is_linear(scheduler: Any) -> bool:
    """Clipping, thresholding and a variance that the UNet predicts make a diffusers sampler not linear."""
    config = scheduler.config
    learned = str(config.get("variance_type")).startswith("learned")
    return not (config.get("clip_sample") or config.get("thresholding") or learned)


def probe(scheduler: Any, first: int | None = None) -> LinearTimestepPlan:
    """Reads the coefficients off a fresh scheduler whose timesteps are set, on the CPU, and uses it up.

    ``first``: as in ``Start``.
    """
    if first is not None and hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    timesteps, generator = scheduler.timesteps[first or 0 :], torch.Generator("cpu")
    arguments = step_arguments(scheduler, generator)
    sample = _unit(0, 1 + 2 * len(timesteps) + SPARES)
    rows, scales, draws, kept = [], [], [], []
    for i, timestep in enumerate(timesteps):
        scales.append(float(scheduler.scale_model_input(torch.ones(1), timestep)))
        before = generator.get_state()
        prediction = _unit(1 + 2 * i, sample.numel())
        sample = scheduler.step(prediction, timestep, sample, **arguments, return_dict=False)[0]
        draws.append(not torch.equal(before, generator.get_state()))
        if draws[-1]:
            _name_noise(sample, before, 2 + 2 * i)
        rows.append(sample.flatten()[: 1 + 2 * len(timesteps)].clone())
        if first is not None:
            kept.append(_kept_shares(scheduler, timesteps[i + 1 : i + 2]))
    coefficients = torch.stack(rows)
    if not any(draws):
        coefficients = torch.cat([coefficients[:, :1], coefficients[:, 1::2]], dim=1)
    return LinearTimestepPlan(
        tuple(timesteps.tolist()), tuple(scales), tuple(draws), coefficients.float(), tuple(kept)
    )


def _kept_shares(scheduler: Any, following: torch.Tensor) -> tuple[float, float]:
    """How much of a latent and of noise is in what is put back now; asked when the pipeline would ask.

    Some schedulers' ``add_noise`` depends on the steps they have done. Nothing ``following``: the last step.
    """
    if not len(following):
        return 1.0, 0.0
    latent, noise = scheduler.add_noise(_unit(0, 2), _unit(1, 2), following).flatten().tolist()
    return latent, noise


def _unit(index: int, length: int) -> torch.Tensor:
    vector = torch.zeros(1, length, 1, 1, dtype=torch.float64)
    vector[0, index] = 1
    return vector


def _name_noise(sample: torch.Tensor, generator_state: torch.Tensor, column: int) -> None:
    """Moves the noise that a step added to every entry of ``sample`` into its own column, in place.

    The spare entries hold nothing else, so their largest tells by how much the noise was scaled.
    """
    twin = torch.Generator("cpu")
    twin.set_state(generator_state)
    noise = first_noise(twin, tuple(sample.shape), sample.dtype)
    spare = sample.numel() - SPARES + int(noise[0, -SPARES:].abs().argmax())
    scale = float(sample[0, spare] / noise[0, spare])
    sample -= scale * noise
    sample[0, column:] = 0  # nothing later can be in it; what is left there is rounding
    sample[0, column] = scale


class TimestepPlans:
    """The coefficients of the schedulers, step counts and first timesteps that were asked for last."""

    def __init__(self, make_scheduler: MakeScheduler) -> None:
        self._make_scheduler = make_scheduler
        self._known: OrderedDict[tuple[str, int, int | None], LinearTimestepPlan] = OrderedDict()

    def of(self, job: Job, first: int | None) -> LinearTimestepPlan:
        """``first``: as in ``Start``."""
        key = (job.scheduler, job.num_inference_steps, first)
        if key not in self._known:
            self._known[key] = probe(self._make_scheduler(job.scheduler, job.num_inference_steps), first)
        self._known.move_to_end(key)
        if len(self._known) > MOST_PLANS:
            self._known.popitem(last=False)
        return self._known[key]
