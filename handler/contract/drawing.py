"""What a door sees of the engine: a job goes in, its outcome comes as a future, with events on the way.

``concurrent.futures`` serves threads and asyncio alike: ``await asyncio.wrap_future(drawing.outcome)``.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Callable, Protocol

from handler.contract.events import Event
from handler.contract.job import Failure, Job, Outcome

OnEvent = Callable[[Event], None]
"""Called with each event of one job, in their order, and never by two threads at once.

The first ``Queued`` comes from the thread that calls ``draw``, before it returns, and so does the ``Failed``
of a job that is refused. All others come from the engine's thread: all drawing waits until the call returns.
One that raises is not called again.
"""


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

    def draw(self, job: Job, on_event: OnEvent | None = None) -> Drawing:
        """Takes the job into the queue, or refuses it with a 429 where that is full. Waits for no step.

        ``on_event`` hears what happens to the job: queued, started, step and preview, then done or failed
        before the outcome is there. It hears nothing more of a job that is cancelled.
        """
