"""The sampler of each latent size in use, of the kind the options ask for."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Callable

import torch

from handler.contract.job import Failure, Job
from handler.engine.coefficients import TimestepPlans
from handler.engine.linear import LinearSampler
from handler.engine.options import EngineOptions
from handler.engine.sampler import SCHEDULER_ERRORS, Sampler, SchedulerSampler, copy_scheduler
from handler.model.model import Model, Size
from handler.model.schedulers import make_scheduler


class FreshSchedulers:
    """Schedulers with their timesteps set, made once per name and step count and copied for each image."""

    def __init__(self, template: Any, device: torch.device | str) -> None:
        self._template, self._device = template, device
        self._made: dict[tuple[str, int], Any] = {}

    def __call__(self, name: str, num_inference_steps: int) -> Any:
        """Raises what diffusers raises for a step count that the scheduler cannot serve."""
        key = (name, num_inference_steps)
        if key not in self._made:
            made = make_scheduler(name, self._template)
            made.set_timesteps(num_inference_steps, device=self._device)
            self._made[key] = made
        return copy_scheduler(self._made[key])


class Samplers:
    """Made on first use; ``keep`` drops the samplers of sizes that no live job has."""

    def __init__(self, model: Model, options: EngineOptions, most_live: Callable[[Size], int]) -> None:
        self._model, self._options, self._most_live = model, options, most_live
        # The vectorised samplers read coefficients, which is the CPU's work.
        self._make_scheduler = FreshSchedulers(model.scheduler, "cpu" if options.vectorised else model.device)
        self._plans = TimestepPlans(self._make_scheduler)
        self._try_scheduler = FreshSchedulers(model.scheduler, "cpu")
        self._by_size: dict[Size, Sampler] = {}

    def check(self, job: Job) -> Failure | None:
        """The 400 of a job whose scheduler cannot take its steps with this model. For any thread."""
        try:
            self._try_scheduler(job.scheduler, job.num_inference_steps)
        except SCHEDULER_ERRORS as error:
            message = f"The scheduler {job.scheduler} cannot take {job.num_inference_steps} steps: {error}"
            return Failure(400, "invalid_request", message)
        return None

    def scheduler(self, job: Job) -> Any:
        """The job's own scheduler, its timesteps set; raises SCHEDULER_ERRORS on impossible settings."""
        return self._make_scheduler(job.scheduler, job.num_inference_steps)

    def of(self, size: Size) -> Sampler:
        if size not in self._by_size:
            self._by_size[size] = self._make(size)
        return self._by_size[size]

    def keep(self, sizes: Collection[Size]) -> None:
        self._by_size = {size: sampler for size, sampler in self._by_size.items() if size in sizes}

    def _make(self, size: Size) -> Sampler:
        model, channels = self._model, self._model.latent_channels
        if not self._options.vectorised:
            return SchedulerSampler(model.dtype)
        columns = self._options.history_columns if self._options.strict else None
        shape = (self._most_live(size), channels, size)
        return LinearSampler(self._plans, shape, model.device, model.dtype, columns)
