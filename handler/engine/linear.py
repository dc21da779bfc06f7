"""Steps all rows by one matrix product, whatever their schedulers: every sampler here is linear.

``handler.engine.coefficients`` says what is multiplied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from handler.contract.job import Job
from handler.engine.coefficients import LinearTimestepPlan, TimestepPlans
from handler.engine.families.family import Keep, Start, first_noise
from handler.engine.sampler import TimestepPlan
from handler.model.model import Size


@dataclass
class LinearState:
    """Where an image's history lies, and the generator its noise comes from."""

    slot: int
    plan: LinearTimestepPlan
    generator: torch.Generator
    keep: Keep | None
    position: int = 0


class LinearSampler:
    """Latents of up to ``capacity`` images of one size, stepped together in fp32.

    Inpainting stays linear, because its mask is 0 or 1: inside it nothing that is put back is ever seen.
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
        self.dtype = torch.float32
        capacity, channels, size = shape
        self._plans = plans
        self._shape = (channels, size.height, size.width)
        self._device, self._model_dtype, self._strict = device, dtype, fixed_columns is not None
        self._history = torch.zeros(
            capacity, fixed_columns or 1, channels * size.height * size.width, device=device
        )
        self._latents = self._history[:, 0].clone()
        self._free = list(range(capacity))

    def join(self, job: Job, start: Start) -> tuple[TimestepPlan, LinearState]:
        plan = self._plans.of(job, start.first)
        self._widen(plan.columns)  # before a place is taken: there may be no memory for it
        state = LinearState(self._free.pop(), plan, start.generator, start.keep)
        self._history[state.slot] = 0  # what an earlier image left there, NaN even, must not be multiplied in
        self._history[state.slot, 0] = start.sample.flatten()
        self._latents[state.slot] = self._history[state.slot, 0]
        return plan, state

    def inputs(self, states: Sequence[LinearState]) -> torch.Tensor:
        scales = torch.tensor([state.plan.input_scales[state.position] for state in states])
        rows = self._latents[self._slots(states)] * scales.to(self._device)[:, None]
        return rows.view(-1, *self._shape).to(self._model_dtype)

    def advance(self, states: Sequence[LinearState], predictions: torch.Tensor) -> list[str | None]:
        drawing = [state for state in states if state.plan.draws[state.position]]
        before = [state.generator.get_state() for state in drawing]
        try:
            self._record(states, predictions.flatten(1).float())
            self._latents[self._slots(states)] = self._put_back(states, self._combine(states))
        except torch.cuda.OutOfMemoryError:
            for state, generator_state in zip(drawing, before):  # the same noise when it is tried again
                state.generator.set_state(generator_state)
            raise
        for state in states:
            state.position += 1
        return [None] * len(states)

    def latent(self, state: LinearState) -> torch.Tensor:
        return self._latents[state.slot].view(1, *self._shape).to(self._model_dtype)

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
            noises = [first_noise(states[i].generator, (1, *self._shape), self._model_dtype) for i in drawing]
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

    def _put_back(self, states: Sequence[LinearState], latents: torch.Tensor) -> torch.Tensor:
        """The latents after their step, with the parts that inpainting keeps."""
        keeping = [(i, state, state.keep) for i, state in enumerate(states) if state.keep is not None]
        if not keeping:
            return latents
        shares = torch.tensor([state.plan.kept[state.position] for _, state, _ in keeping])
        of_latent, of_noise = shares.to(self._device).view(-1, 2, 1, 1, 1).unbind(1)
        masks, sources, noises = (
            torch.cat([getattr(keep, name) for _, _, keep in keeping]) for name in ("mask", "latent", "noise")
        )
        rows = torch.tensor([i for i, _, _ in keeping], device=self._device)
        drawn = latents[rows].view(-1, *self._shape)
        mixed = torch.where(masks > 0, drawn, of_latent * sources + of_noise * noises)
        return latents.index_copy(0, rows, mixed.flatten(1))
