"""What the engine hands out and keeps: tickets, and the images that are being drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from handler.contract.drawing import OnEvent
from handler.contract.events import Started, Step
from handler.contract.job import CutText, Job
from handler.engine.previews import PreviewPlan
from handler.engine.sampler import State, TimestepPlan
from handler.model.model import Size


class Ticket(NamedTuple):
    """The engine's name for one submitted job; numbers grow with age."""

    number: int


@dataclass(frozen=True)
class Prompts:
    """A job's encoded texts, each (1, tokens, width); no negative one where no guidance is asked for.

    ``cut_texts``: as in ``Picture``.
    """

    positive: torch.Tensor
    negative: torch.Tensor | None
    cut_texts: Mapping[str, CutText] = field(default_factory=dict)


@dataclass(eq=False)
class LiveImage:
    """One image between admission and its last denoising step."""

    ticket: Ticket
    job: Job
    size: Size
    prompts: Prompts
    plan: TimestepPlan
    state: State
    beside: torch.Tensor | None
    previews: PreviewPlan | None
    queue_seconds: float
    admitted_at: float
    on_event: OnEvent | None = None
    stalls: int = 0
    """Steps in a row that memory had no room for."""

    @property
    def timestep(self) -> float:
        return self.plan.timesteps[self.state.position]

    @property
    def steps_left(self) -> int:
        return len(self.plan.timesteps) - self.state.position

    def tell_started(self) -> None:
        """Tells its listener, if it has one, that it has its place."""
        if self.on_event is not None:
            self.on_event(Started(len(self.plan.timesteps), self.queue_seconds))

    def tell_step(self, now: float) -> None:
        """Tells its listener, if it has one, how far it is; ``now`` is on the engine's clock."""
        if self.on_event is not None:
            done, seconds = self.state.position, now - self.admitted_at
            left = seconds / done * self.steps_left
            self.on_event(Step(done, len(self.plan.timesteps), seconds, left))

    @property
    def shows_preview(self) -> bool:
        """Whether what its next step predicts is to be shown."""
        return self.previews is not None and self.state.position + 1 in self.previews.steps

    @property
    def negative(self) -> torch.Tensor | None:
        """The negative text where this step is guided.

        As under diffusers' SDCFGCutoffCallback, the step at which guidance ends is still guided.
        """
        guided = self.state.position <= int(len(self.plan.timesteps) * self.job.guidance_until)
        return self.prompts.negative if guided else None

    @property
    def rows(self) -> int:
        """UNet rows that the next step of this image takes: two with classifier-free guidance."""
        return 1 if self.negative is None else 2
