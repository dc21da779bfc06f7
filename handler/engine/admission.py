"""Which jobs are drawn next: the queue, the places and the pace. What draws them is in ``live_batch``."""

from __future__ import annotations

import dataclasses
import itertools
import threading
from collections.abc import Sequence
from typing import Callable, NamedTuple

from handler.contract.drawing import OnEvent
from handler.contract.events import Queued
from handler.contract.job import Failure, Job
from handler.engine.families.family import steps_of_strength
from handler.engine.memory.capacity import Capacity
from handler.engine.metrics import EngineMetrics
from handler.engine.options import EngineOptions
from handler.engine.pace import Pace
from handler.engine.ticket import LiveImage, Ticket
from handler.engine.waiting import OVERLOADED, TOO_LATE, Waiting, WaitingLine


class News(NamedTuple):
    """What a listener is to be told."""

    listener: OnEvent
    event: Queued


class Admission:
    """Keeps jobs in line until there is a place. Any thread may ``submit`` and ``withdraw``.

    ``live`` is the images that are being drawn, as of now; times are of the engine's ``clock`` in seconds.
    """

    def __init__(
        self,
        options: EngineOptions,
        capacity: Capacity,
        metrics: EngineMetrics,
        live: Callable[[], Sequence[LiveImage]],
    ) -> None:
        self.pace = Pace()
        self.joining: list[Ticket] = []
        """Out of the queue and not live yet."""
        self._options, self._capacity, self._metrics, self._live = options, capacity, metrics, live
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._waiting = WaitingLine(options.max_queue, options.patience_seconds)
        self._told: dict[Ticket, int] = {}
        """The place in the queue that each listener knows."""

    def __len__(self) -> int:
        """Jobs that wait for a place."""
        return len(self._waiting)

    def submit(self, job: Job, now: float, on_event: OnEvent | None) -> Ticket | Failure:
        """Takes the job into the queue, or refuses it with a 429 Failure when the queue is full.

        ``on_event`` hears at once which place in the queue it has.
        """
        with self._lock:
            # A job in the queue while places are free has only not been stepped yet.
            free = self._options.max_live - len(self._live()) - len(self.joining)
            if len(self._waiting) >= self._options.max_queue + free:
                self._metrics.count("refused")
                return dataclasses.replace(OVERLOADED, retry_after_seconds=self._retry_after_seconds())
            ticket = Ticket(next(self._numbers))
            self._waiting.join(ticket, job, now, on_event)
            news = self._places_to_tell(now, ticket) if on_event else []
        _tell(news)
        return ticket

    def tell_places(self, now: float) -> None:
        """Tells those whose place in the queue has changed since they were told."""
        if self._told:
            with self._lock:
                news = self._places_to_tell(now)
            _tell(news)

    def withdraw(self, ticket: Ticket) -> bool:
        """Takes a job that still waits out of the queue; False where it does not wait."""
        with self._lock:
            if waiting := self._waiting.leave(ticket):
                self._metrics.count("cancelled")
        return waiting

    def count_cancelled(self) -> None:
        """One job that had left the queue is cancelled."""
        with self._lock:
            self._metrics.count("cancelled")

    def next_in_line(self, now: float, finish: Callable[[Ticket, Failure], None]) -> list[Waiting]:
        """Takes out the jobs for which there are places; those whose deadline has passed are finished."""
        newcomers: list[Waiting] = []
        with self._lock:
            for late in self._waiting.expire(now):
                finish(late.ticket, TOO_LATE)
            while (first := self._waiting.first()) and self._may_join(newcomers, first.job):
                newcomers.append(self._waiting.pop())
            self.joining = [newcomer.ticket for newcomer in newcomers]
        return newcomers

    def empty(self) -> list[Ticket]:
        """Takes out all jobs that wait."""
        with self._lock:
            return [self._waiting.pop().ticket for _ in range(len(self._waiting))]

    def _places_to_tell(self, now: float, only: Ticket | None = None) -> list[News]:
        """What listeners in the queue, or the ``only`` one, do not know yet, as known from now on."""
        line = self._waiting.in_order()
        if not line:
            self._told = {}
            return []
        live = [image.steps_left for image in self._live()]
        # Where there is a queue, memory may hold fewer images than there could be places.
        places = self._options.max_live if self._has_place((), line[0].job) else max(1, len(live))
        steps = [steps_of_strength(waiting.job) for waiting in line]
        told, news = self._told, list[News]()
        self._told = {}
        for place, (waiting, seconds) in enumerate(
            zip(line, self.pace.seconds_to_wait(live, steps, places)), 1
        ):
            ticket, known = waiting.ticket, told.get(waiting.ticket)
            if waiting.on_event is None:
                continue
            if known != place and only in (None, ticket):
                news.append(News(waiting.on_event, Queued(place, now - waiting.arrived_at, seconds)))
                known = place
            if known is not None:
                self._told[ticket] = known
        return news

    def _may_join(self, newcomers: Sequence[Waiting], job: Job) -> bool:
        # Encoding a picture takes about as long as decoding one: the live images wait for one at a time.
        if job.image and self._live() and any(newcomer.job.image for newcomer in newcomers):
            return False
        return self._has_place(newcomers, job)

    def _has_place(self, newcomers: Sequence[Waiting], job: Job) -> bool:
        taken = [image.job for image in self._live()] + [newcomer.job for newcomer in newcomers]
        return self._capacity.fits(taken, job)

    def _retry_after_seconds(self) -> int:
        live_steps = sum(image.steps_left for image in self._live())
        return self.pace.retry_after_seconds(self._waiting.steps, live_steps, self._options.max_live)


def _tell(news: Sequence[News]) -> None:
    """Never under the lock: a listener may take one that a thread holds while it submits."""
    for listener, event in news:
        listener(event)
