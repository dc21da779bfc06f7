"""What a door sees of the engine: a job goes in, its outcome comes as a future, with progress on the way.

``concurrent.futures`` serves threads and asyncio alike: ``await asyncio.wrap_future(drawing.outcome)``.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Callable, NamedTuple, Protocol

from handler.contract.job import Failure, Job, Outcome


class Progress(NamedTuple):
    """``step`` of ``steps`` denoising steps are done, ``seconds`` after the job got its place."""

    step: int
    steps: int
    seconds: float


OnProgress = Callable[[Progress], None]
"""Called from the engine's thread after each step of the job; all drawing waits until it returns."""


@dataclass(frozen=True)
class Drawing:
    """A job on its way. ``refused``: it was never queued, and the outcome, a Failure, is there already."""

    outcome: Future[Outcome]
    refused: bool = False

    def cancel(self) -> None:
        """Frees the job's place before the next step; nothing happens where the outcome is there.

        To cancel the future does the same, and so does to cancel an asyncio task that awaits it.
        """
        self.outcome.cancel()


class Draws(Protocol):
    """The engine in this process (``handler.engine.runner.Runner``) or elsewhere. For any thread."""

    def check(self, job: Job) -> Failure | None:
        """What can be said against the job before it is drawn: a 400, or None."""

    def draw(self, job: Job, on_progress: OnProgress | None = None) -> Drawing:
        """Takes the job into the queue, or refuses it with a 429 where that is full. Waits for no step."""
