"""Requests through the engine: one of them may hold several jobs, and is answered when all are finished.

``Carrier`` keeps the books of open requests while a ``Runner`` draws. It is asked in two ways: ``call`` waits
for a moment, one iteration of TorchServe's continuous batching; ``finish_all`` is one plain batch. What a
request is and how it is answered comes from outside, so nothing here knows TorchServe.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Callable, Generic, TypeVar, Union

from handler.contract.job import Failure, Job, Outcome
from handler.engine.engine import Engine
from handler.engine.runner import Runner
from handler.engine.ticket import Ticket
from handler.engine.watchdog import Watchdog

Reply = TypeVar("Reply")

CALL_SECONDS = 0.05
"""The longest a newcomer waits for the call before it to end, where steps are short."""

LONGEST_CALL_SECONDS = 0.25
STEP_SHARE = 0.05
"""Where steps take seconds a call may last this share of one: a newcomer must wait for its end anyhow."""

TOOK_TOO_LONG = Failure(
    504,
    "took_too_long",
    "The server had no time left to finish this request together with the others of its batch; ask for fewer"
    " steps, fewer instances or fewer pixels.",
)


Answer = Callable[[Sequence[Union[Outcome, None]]], Reply]
"""Makes a reply of one outcome per job; None where nothing was drawn because of another's failure."""


@dataclass
class Open(Generic[Reply]):
    """A request that is being drawn or, with ``reply``, encoded."""

    answer: Answer[Reply]
    tickets: list[Ticket] = field(default_factory=list)
    outcomes: list[Outcome | None] = field(default_factory=list)
    reply: Future[Reply] | None = None


class Carrier(Generic[Reply]):
    """Feeds an engine and encodes answers in threads. Its methods are called from one thread."""

    def __init__(self, engine: Engine, watchdog: Watchdog, encoders: int = 2) -> None:
        self.engine = engine
        self._news = threading.Event()
        self._runner = Runner(engine, watchdog, self._news.set)
        self._open: dict[str, Open[Reply]] = {}
        self._owners: dict[Ticket, str] = {}
        self._pool = ThreadPoolExecutor(encoders, thread_name_prefix="marquee-encode")

    @property
    def open_requests(self) -> Sequence[str]:
        return list(self._open)

    def admit(self, name: str, jobs: Sequence[Job], answer: Answer[Reply]) -> None:
        """Opens a request. Where one of its jobs is refused none is taken, and the request is answered."""
        request = self._open[name] = Open(answer)
        refused = [self.engine.check(job) for job in jobs]
        for job in jobs if not any(refused) else ():
            ticket = self._runner.submit(job)
            if not isinstance(ticket, Ticket):
                self._withdraw(request)
                refused = [ticket] * len(jobs)
                break
            request.tickets.append(ticket)
            request.outcomes.append(None)
            self._owners[ticket] = name
        if not request.tickets:
            # Said at once: what is refused must be told so before its headers have left.
            request.reply = Future()
            request.reply.set_result(answer(refused))

    def cancel(self, name: str) -> None:
        """The request's caller is gone: its places are free before the next step."""
        self._withdraw(self._open.pop(name))

    def abandon(self) -> None:
        """Gives up every open request."""
        for name in list(self._open):
            self.cancel(name)

    @property
    def call_seconds(self) -> float:
        """How long a call may wait: each costs TorchServe work on the cores that draw."""
        return max(CALL_SECONDS, min(LONGEST_CALL_SECONDS, STEP_SHARE * self.engine.pace.step_seconds))

    def call(self, seconds: float) -> Mapping[str, Reply]:
        """Waits until a request is answered, at most ``seconds``; returns the answers."""
        end = time.monotonic() + seconds
        while True:
            self._news.clear()
            for ticket, outcome in self._runner.take(until=end):
                self._note(ticket, outcome)
            answered = self._take_answers()
            left = end - time.monotonic()
            if answered or not self._open or left <= 0:
                return answered
            self._news.wait(left)

    def finish_all(self, seconds: float = math.inf) -> Mapping[str, Reply]:
        """Waits until every open request is answered; what is not drawn after ``seconds`` fails alone."""
        end = time.monotonic() + seconds
        answers: dict[str, Reply] = {}
        while self._open:
            answers.update(self.call(max(0.0, min(1.0, end - time.monotonic()))))
            if time.monotonic() >= end:
                self._give_up_undrawn()
                end = math.inf
        return answers

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._runner.close()

    def _note(self, ticket: Ticket, outcome: Outcome) -> None:
        name = self._owners.pop(ticket, None)
        if name is None:
            return  # finished in the very step in which it was cancelled
        request = self._open[name]
        request.outcomes[request.tickets.index(ticket)] = outcome
        outcomes = [drawn for drawn in request.outcomes if drawn is not None]
        if len(outcomes) == len(request.outcomes):
            self._encode(request, outcomes)

    def _give_up_undrawn(self) -> None:
        for request in self._open.values():
            if request.reply is None:
                self._withdraw(request)
                outcomes = [TOOK_TOO_LONG if drawn is None else drawn for drawn in request.outcomes]
                self._encode(request, outcomes)

    def _encode(self, request: Open[Reply], outcomes: Sequence[Outcome]) -> None:
        request.reply = self._pool.submit(request.answer, outcomes)
        request.reply.add_done_callback(lambda _: self._news.set())

    def _take_answers(self) -> dict[str, Reply]:
        """The answers that are ready; their requests are closed."""
        done = [name for name, request in self._open.items() if request.reply and request.reply.done()]
        return {name: self._reply(self._open.pop(name)) for name in done}

    def _reply(self, request: Open[Reply]) -> Reply:
        assert request.reply is not None
        return request.reply.result()

    def _withdraw(self, request: Open[Reply]) -> None:
        self._runner.cancel(request.tickets)
        for ticket in request.tickets:
            self._owners.pop(ticket, None)
        request.tickets = []
