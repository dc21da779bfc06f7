"""What the engine hands out and keeps: tickets, and the images that are being drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from handler.contract.job import Job

if TYPE_CHECKING:
    import torch

    from handler.engine.sampler import Course, State


class Ticket(NamedTuple):
    """The engine's name for one submitted job; numbers grow with age."""

    number: int


class Size(NamedTuple):
    """Rows and columns of a latent: pixels divided by the autoencoder's factor."""

    height: int
    width: int


@dataclass(frozen=True)
class Prompts:
    """A job's encoded texts, each (1, tokens, width); no negative one where no guidance is asked for."""

    positive: torch.Tensor
    negative: torch.Tensor | None


@dataclass(eq=False)
class LiveImage:
    """One image between admission and its last denoising step."""

    ticket: Ticket
    job: Job
    size: Size
    prompts: Prompts
    course: Course
    state: State
    queue_seconds: float
    admitted_at: float
    stalls: int = 0
    """Steps in a row that memory had no room for."""

    @property
    def timestep(self) -> float:
        return self.course.timesteps[self.state.position]

    @property
    def steps_left(self) -> int:
        return len(self.course.timesteps) - self.state.position

    @property
    def rows(self) -> int:
        """UNet rows a step of this image takes: two with classifier-free guidance."""
        return 1 if self.prompts.negative is None else 2
