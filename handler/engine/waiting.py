"""The bounded queue before the live places: the earliest deadline first, then the oldest."""

from __future__ import annotations

import heapq
from typing import NamedTuple

from handler.contract.drawing import OnEvent
from handler.contract.job import Failure, Job
from handler.engine.families.family import steps_of_strength
from handler.engine.ticket import Ticket

OVERLOADED = Failure(
    429, "overloaded", "The queue is full; try again after the seconds given in Retry-After."
)
TOO_LATE = Failure(504, "deadline_exceeded", "The request's deadline_seconds passed before its turn came.")


class Waiting(NamedTuple):
    """A queued job; sorts by ``due``, then by age. Times are seconds of the engine's clock."""

    due: float
    ticket: Ticket
    arrived_at: float
    expires_at: float
    job: Job
    on_event: OnEvent | None


class WaitingLine:
    """At most ``capacity`` jobs. A job without a deadline ages into its turn after ``patience_seconds``."""

    def __init__(self, capacity: int, patience_seconds: float) -> None:
        self.capacity = capacity
        self._patience_seconds = patience_seconds
        self._heap: list[Waiting] = []

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def steps(self) -> int:
        """Denoising steps of all jobs that wait."""
        return sum(steps_of_strength(waiting.job) for waiting in self._heap)

    def join(self, ticket: Ticket, job: Job, now: float, on_event: OnEvent | None = None) -> None:
        deadline = job.deadline_seconds
        expires_at = float("inf") if deadline is None else now + deadline
        due = min(expires_at, now + self._patience_seconds)
        heapq.heappush(self._heap, Waiting(due, ticket, now, expires_at, job, on_event))

    def in_order(self) -> list[Waiting]:
        """All that wait, the next one first."""
        return sorted(self._heap)

    def first(self) -> Waiting | None:
        return self._heap[0] if self._heap else None

    def pop(self) -> Waiting:
        return heapq.heappop(self._heap)

    def expire(self, now: float) -> list[Waiting]:
        """Takes out and returns the jobs whose deadline has passed."""
        late = [waiting for waiting in self._heap if waiting.expires_at <= now]
        if late:
            self._heap = [waiting for waiting in self._heap if waiting.expires_at > now]
            heapq.heapify(self._heap)
        return late

    def leave(self, ticket: Ticket) -> bool:
        kept = [waiting for waiting in self._heap if waiting.ticket != ticket]
        left = len(kept) < len(self._heap)
        if left:
            heapq.heapify(kept)
            self._heap = kept
        return left
