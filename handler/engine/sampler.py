"""How an image's latent moves: the interface of a sampler, and the one that runs diffusers' own schedulers.

A sampler keeps the latents of the images of one size. ``SchedulerSampler`` gives each image its own scheduler
(no diffusers scheduler can step rows that are at different timesteps) and so is exact by construction;
``handler.engine.linear`` computes the same for all rows at once.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, Protocol

import torch

from handler.contract.job import Job
from handler.engine.families.family import Keep, Start

MakeScheduler = Callable[[str, int], Any]
"""A fresh diffusers scheduler, its timesteps set, from a canonical name and a number of inference steps."""

SCHEDULER_ERRORS = (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError)
"""What diffusers' schedulers raise on settings they cannot serve."""


@dataclass(frozen=True)
class TimestepPlan:
    """The timesteps an image goes through; PNDM repeats one, so it takes a step more than asked for."""

    timesteps: tuple[float, ...]


class State(Protocol):
    """A sampler's own notes on one image."""

    position: int
    """Steps done."""
    keep: Keep | None


class Sampler(Protocol):
    """Latents of one size, (4, height, width) each, through their steps; takes its own states only."""

    dtype: torch.dtype
    """What latents are calculated in."""

    def join(self, job: Job, start: Start) -> tuple[TimestepPlan, Any]:
        """Takes the job's image from its start on; raises SCHEDULER_ERRORS on impossible settings."""

    def inputs(self, states: Sequence[Any]) -> torch.Tensor:
        """The UNet's input for each state, (len(states), 4, height, width), in the model's dtype."""

    def advance(self, states: Sequence[Any], predictions: torch.Tensor) -> list[str | None]:
        """One step of each state; where a scheduler failed, its message in that state's place.

        Raises torch.cuda.OutOfMemoryError with every state as it was.
        """

    def latent(self, state: Any) -> torch.Tensor:
        """(1, 4, height, width)"""

    def leave(self, state: Any) -> None:
        """Frees what the state holds."""


def step_arguments(scheduler: Any, generator: torch.Generator) -> dict[str, Any]:
    """What StableDiffusionPipeline passes to ``step`` beside the tensors, where the scheduler takes it."""
    offered = {"eta": 0.0, "generator": generator}
    taken = inspect.signature(scheduler.step).parameters
    return {name: value for name, value in offered.items() if name in taken}


def copy_scheduler(scheduler: Any) -> Any:
    """A copy that can be stepped for itself.

    It shares the tables, which steps only read, and has lists of its own, which steps write. A deep copy
    takes as long as a denoising step of the embedded model.
    """
    copied = copy.copy(scheduler)
    lists = {name: list(value) for name, value in vars(copied).items() if isinstance(value, list)}
    vars(copied).update(lists)
    return copied


@dataclass
class SchedulerState:
    """One image's own scheduler, latent (1, 4, height, width) and position in its ``timesteps``."""

    scheduler: Any
    timesteps: torch.Tensor
    latent: torch.Tensor
    arguments: dict[str, Any]
    keep: Keep | None
    position: int = 0

    @property
    def timestep(self) -> torch.Tensor:
        return self.timesteps[self.position]


class SchedulerSampler:
    """Runs diffusers' schedulers, one instance per image, on rows of shape (1, 4, height, width)."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def join(self, job: Job, start: Start) -> tuple[TimestepPlan, SchedulerState]:
        arguments = step_arguments(start.scheduler, start.generator)
        state = SchedulerState(start.scheduler, start.timesteps, start.sample, arguments, start.keep)
        return TimestepPlan(tuple(start.timesteps.tolist())), state

    def inputs(self, states: Sequence[SchedulerState]) -> torch.Tensor:
        return torch.cat(
            [state.scheduler.scale_model_input(state.latent, state.timestep) for state in states]
        )

    def advance(self, states: Sequence[SchedulerState], predictions: torch.Tensor) -> list[str | None]:
        rows = predictions.to(self.dtype).unsqueeze(1)
        before = [_snapshot(state) for state in states]
        try:
            return [self._advance(state, row) for state, row in zip(states, rows)]
        except torch.cuda.OutOfMemoryError:
            for state, restore in zip(states, before):
                restore(state)
            raise

    def _advance(self, state: SchedulerState, prediction: torch.Tensor) -> str | None:
        try:
            latent = state.scheduler.step(
                prediction, state.timestep, state.latent, **state.arguments, return_dict=False
            )[0]
            state.latent = latent if state.keep is None else _put_back(state, state.keep, latent)
        except torch.cuda.OutOfMemoryError:  # a RuntimeError, too
            raise
        except SCHEDULER_ERRORS as error:
            return f"{type(error).__name__}: {error}"
        state.position += 1
        return None

    def latent(self, state: SchedulerState) -> torch.Tensor:
        return state.latent

    def leave(self, state: SchedulerState) -> None:
        """Nothing: the state holds all there is."""


def _put_back(state: SchedulerState, keep: Keep, latent: torch.Tensor) -> torch.Tensor:
    """As StableDiffusionInpaintPipeline after each step: the kept part comes back, noised as the next."""
    kept = keep.latent
    if state.position < len(state.timesteps) - 1:
        following = torch.tensor([state.timesteps[state.position + 1]])
        kept = state.scheduler.add_noise(kept, keep.noise, following)
    return (1 - keep.mask) * kept + keep.mask * latent


def _snapshot(state: SchedulerState) -> Callable[[SchedulerState], None]:
    """What makes a state again as it is now: its scheduler's notes, and the noise that it will draw next."""
    scheduler, latent, position = copy_scheduler(state.scheduler), state.latent, state.position
    generator = state.arguments.get("generator")
    drawn = None if generator is None else generator.get_state()

    def restore(changed: SchedulerState) -> None:
        changed.scheduler, changed.latent, changed.position = scheduler, latent, position
        if generator is not None:
            generator.set_state(drawn)

    return restore
