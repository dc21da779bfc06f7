"""Every sampler here is linear, so all rows can be stepped by one matrix product, whatever their schedulers.

After i steps an image's latent is a fixed linear combination of its first noise, of the UNet's predictions so
far and, for the ancestral samplers, of the noise added on the way: x_i = sum over k of C[i, k] . h_k. The
coefficients C belong to the scheduler and its step count alone. ``probe`` reads them off diffusers' own
scheduler by running it on unit vectors, so there is no formula here that could differ from diffusers'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from handler.contract.job import Job
from handler.engine.sampler import MakeScheduler, TimestepPlan, first_noise, step_arguments
from handler.model.model import Size

SPARES = 8


@dataclass(frozen=True)
class LinearTimestepPlan(TimestepPlan):
    """A scheduler at a step count, as numbers.

    ``coefficients[i]`` makes the latent after step i from the columns of an image's history: column 0 is the
    first noise, then two per step, the UNet's prediction and the noise drawn (one where none is ever drawn).
    """

    init_noise_sigma: float
    input_scales: tuple[float, ...]
    draws: tuple[bool, ...]
    coefficients: torch.Tensor

    @property
    def columns(self) -> int:
        return int(self.coefficients.shape[1])

    @property
    def stride(self) -> int:
        return 2 if any(self.draws) else 1


def is_linear(scheduler: Any) -> bool:
    """Clipping and thresholding of the predicted picture are what makes a diffusers sampler not linear."""
    return not (scheduler.config.get("clip_sample") or scheduler.config.get("thresholding"))


def probe(scheduler: Any) -> LinearTimestepPlan:
    """Reads the coefficients off a fresh scheduler whose timesteps are set, on the CPU, and uses it up."""
    timesteps, generator = scheduler.timesteps, torch.Generator("cpu")
    arguments = step_arguments(scheduler, generator)
    sample = _unit(0, 1 + 2 * len(timesteps) + SPARES)
    rows, scales, draws = [], [], []
    for i, timestep in enumerate(timesteps):
        scales.append(float(scheduler.scale_model_input(torch.ones(1), timestep)))
        before = generator.get_state()
        prediction = _unit(1 + 2 * i, sample.numel())
        sample = scheduler.step(prediction, timestep, sample, **arguments, return_dict=False)[0]
        draws.append(not torch.equal(before, generator.get_state()))
        if draws[-1]:
            _name_noise(sample, before, 2 + 2 * i)
        rows.append(sample.flatten()[: 1 + 2 * len(timesteps)].clone())
    coefficients = torch.stack(rows)
    if not any(draws):
        coefficients = torch.cat([coefficients[:, :1], coefficients[:, 1::2]], dim=1)
    return LinearTimestepPlan(
        tuple(timesteps.tolist()),
        float(scheduler.init_noise_sigma),
        tuple(scales),
        tuple(draws),
        coefficients.float(),
    )


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
    """The coefficients of every scheduler and step count asked for so far: at most a few hundred tables."""

    def __init__(self, make_scheduler: MakeScheduler) -> None:
        self._make_scheduler = make_scheduler
        self._known: dict[tuple[str, int], LinearTimestepPlan] = {}

    def of(self, job: Job) -> LinearTimestepPlan:
        key = (job.scheduler, job.num_inference_steps)
        if key not in self._known:
            self._known[key] = probe(self._make_scheduler(*key))
        return self._known[key]


@dataclass
class LinearState:
    """Where an image's history lies, and the generator its noise comes from."""

    slot: int
    plan: LinearTimestepPlan
    generator: torch.Generator
    position: int = 0


class LinearSampler:
    """Latents of up to ``capacity`` images of one size, stepped together in fp32.

    ``fixed_columns`` (strict mode) makes every product the same shape, so that the other
    images do not change a row's bits.
    """

    def __init__(
        self,
        plans: TimestepPlans,
        shape: tuple[int, int, Size],
        device: torch.device,
        dtype: torch.dtype,
        fixed_columns: int | None = None,
    ) -> None:
        capacity, channels, size = shape
        self._plans = plans
        self._shape = (channels, size.height, size.width)
        self._device, self._dtype, self._strict = device, dtype, fixed_columns is not None
        self._history = torch.zeros(
            capacity, fixed_columns or 1, channels * size.height * size.width, device=device
        )
        self._latents = self._history[:, 0].clone()
        self._free = list(range(capacity))

    def join(self, job: Job) -> tuple[TimestepPlan, LinearState]:
        plan = self._plans.of(job)
        generator = torch.Generator("cpu").manual_seed(job.seed)
        noise = first_noise(generator, (1, *self._shape), self._dtype).to(self._device).float()
        latent = (noise * plan.init_noise_sigma).flatten()
        self._widen(plan.columns)  # all this before a place is taken: there may be no memory for it
        state = LinearState(self._free.pop(), plan, generator)
        self._history[state.slot] = 0  # what an earlier image left there, NaN even, must not be multiplied in
        self._history[state.slot, 0] = latent
        self._latents[state.slot] = self._history[state.slot, 0]
        return plan, state

    def inputs(self, states: Sequence[LinearState]) -> torch.Tensor:
        scales = torch.tensor([state.plan.input_scales[state.position] for state in states])
        rows = self._latents[self._slots(states)] * scales.to(self._device)[:, None]
        return rows.view(-1, *self._shape).to(self._dtype)

    def advance(self, states: Sequence[LinearState], predictions: torch.Tensor) -> list[str | None]:
        drawing = [state for state in states if state.plan.draws[state.position]]
        before = [state.generator.get_state() for state in drawing]
        try:
            self._record(states, predictions.flatten(1).float())
            self._latents[self._slots(states)] = self._combine(states)
        except torch.cuda.OutOfMemoryError:
            for state, generator_state in zip(drawing, before):  # the same noise when it is tried again
                state.generator.set_state(generator_state)
            raise
        for state in states:
            state.position += 1
        return [None] * len(states)

    def latent(self, state: LinearState) -> torch.Tensor:
        return self._latents[state.slot].view(1, *self._shape).to(self._dtype)

    def leave(self, state: LinearState) -> None:
        self._free.append(state.slot)

    def _slots(self, states: Sequence[LinearState]) -> torch.Tensor:
        return torch.tensor([state.slot for state in states], device=self._device)

    def _widen(self, columns: int) -> None:
        missing = columns - self._history.shape[1]
        if missing > 0:
            self._history = torch.nn.functional.pad(self._history, (0, 0, 0, missing))

    def _record(self, states: Sequence[LinearState], predictions: torch.Tensor) -> None:
        """Writes the predictions, and the noise of those that draw some now, into the histories."""
        slots = self._slots(states)
        columns = torch.tensor(
            [1 + state.position * state.plan.stride for state in states], device=self._device
        )
        self._history[slots, columns] = predictions
        drawing = [i for i, state in enumerate(states) if state.plan.draws[state.position]]
        if drawing:
            noises = [first_noise(states[i].generator, (1, *self._shape), self._dtype) for i in drawing]
            rows = torch.tensor(drawing, device=self._device)
            self._history[slots[rows], columns[rows] + 1] = (
                torch.cat(noises).to(self._device).flatten(1).float()
            )

    def _combine(self, states: Sequence[LinearState]) -> torch.Tensor:
        """The new latents, (len(states), channels * height * width)."""
        width = max(state.plan.columns for state in states)
        if self._strict:
            weights = torch.zeros(self._history.shape[:2])
            for state in states:
                weights[state.slot, : state.plan.columns] = state.plan.coefficients[state.position]
            everyone = torch.bmm(weights.to(self._device)[:, None], self._history)[:, 0]
            return everyone[self._slots(states)]
        weights = torch.zeros(len(states), width)
        for row, state in zip(weights, states):
            row[: state.plan.columns] = state.plan.coefficients[state.position]
        history = self._history[self._slots(states), :width]
        return torch.bmm(weights.to(self._device)[:, None], history)[:, 0]
