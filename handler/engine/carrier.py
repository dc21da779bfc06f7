"""Requests through the engine: one of them may hold several jobs, and is answered when all are finished.

``Carrier`` keeps the books of open requests. It is driven in two ways: ``call`` draws for a moment, one
iteration of TorchServe's continuous batching; ``finish_all`` is one plain batch. What a request is and how it
is answered comes from outside, so nothing here knows TorchServe.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Callable, Generic, TypeVar

from handler.engine.engine import Engine
from handler.engine.ticket import Ticket
from handler.engine.watchdog import Watchdog
from handler.job import Failure, Job, Outcome

Reply = TypeVar("Reply")

CALL_SECONDS = 0.05
"""The longest a newcomer waits for the call before it to end, unless one step takes longer."""

TOOK_TOO_LONG = Failure(
    504,
    "took_too_long",
    "The server had no time left to finish this request together with the others of its batch; ask for fewer"
    " steps, fewer instances or fewer pixels.",
)


@dataclass
class Open(Generic[Reply]):
    """A request that is being drawn or, with ``reply``, encoded."""

    answer: Callable[[Sequence[Outcome]], Reply]
    tickets: list[Ticket] = field(default_factory=list)
    outcomes: list[Outcome | None] = field(default_factory=list)
    reply: Future[Reply] | None = None


class Carrier(Generic[Reply]):
    """Feeds an engine and encodes answers in threads. Its methods are called from one thread."""

    def __init__(self, engine: Engine, watchdog: Watchdog, encoders: int = 2) -> None:
        self.engine = engine
        self._watchdog = watchdog
        self._open: dict[str, Open[Reply]] = {}
        self._owners: dict[Ticket, str] = {}
        self._pool = ThreadPoolExecutor(encoders, thread_name_prefix="marquee-encode")

    @property
    def open_requests(self) -> Sequence[str]:
        return list(self._open)

    def admit(self, name: str, jobs: Sequence[Job], answer: Callable[[Sequence[Outcome]], Reply]) -> None:
        """Opens a request. Where the queue cannot take all its jobs it takes none, and the request fails."""
        request = self._open[name] = Open(answer)
        for job in jobs:
            ticket = self.engine.submit(job)
            if not isinstance(ticket, Ticket):
                self._withdraw(request)
                request.outcomes = [ticket] * len(jobs)
                break
            request.tickets.append(ticket)
            request.outcomes.append(None)
            self._owners[ticket] = name
        if not request.tickets:
            # Said at once: what is refused must be told so before its headers have left.
            request.reply = Future()
            request.reply.set_result(answer(list(filter(None, request.outcomes))))

    def cancel(self, name: str) -> None:
        """The request's caller is gone: its places are free before the next step."""
        self._withdraw(self._open.pop(name))

    def abandon(self) -> None:
        """Gives up every open request."""
        for name in list(self._open):
            self.cancel(name)

    def call(self, seconds: float = CALL_SECONDS) -> Mapping[str, Reply]:
        """Steps until a request is answered or ``seconds`` would be exceeded; returns the answers."""
        end = time.monotonic() + seconds
        stepped = False
        while not (answered := self.take_answers()):
            if self.engine.busy and (not stepped or time.monotonic() + self.engine.pace.step_seconds < end):
                self._step()
                stepped = True
            elif not self.engine.busy and self._open and time.monotonic() < end:
                self._await_encoder(end - time.monotonic())
            else:
                break
        return answered

    def finish_all(self, seconds: float = math.inf) -> Mapping[str, Reply]:
        """Steps until every open request is answered; what is not drawn after ``seconds`` fails alone."""
        end = time.monotonic() + seconds
        answers: dict[str, Reply] = {}
        while self._open:
            if time.monotonic() + self.engine.pace.step_seconds > end:
                self._give_up_undrawn()
            answers.update(self.call(seconds=1.0))
        return answers

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        self.engine.close()

    def _step(self) -> None:
        with self._watchdog.watch():
            finished = self.engine.step()
        for ticket, outcome in finished:
            request = self._open[self._owners.pop(ticket)]
            request.outcomes[request.tickets.index(ticket)] = outcome
            self._encode_if_drawn(request)

    def _give_up_undrawn(self) -> None:
        for request in self._open.values():
            if request.reply is None:
                self._withdraw(request)
                outcomes = [TOOK_TOO_LONG if drawn is None else drawn for drawn in request.outcomes]
                request.reply = self._pool.submit(request.answer, outcomes)

    def _encode_if_drawn(self, request: Open[Reply]) -> None:
        outcomes = [outcome for outcome in request.outcomes if outcome is not None]
        if len(outcomes) == len(request.outcomes):
            request.reply = self._pool.submit(request.answer, outcomes)

    def take_answers(self) -> dict[str, Reply]:
        """The answers that are ready; their requests are closed."""
        done = [name for name, request in self._open.items() if request.reply and request.reply.done()]
        return {name: self._reply(self._open.pop(name)) for name in done}

    def _reply(self, request: Open[Reply]) -> Reply:
        assert request.reply is not None
        return request.reply.result()

    def _await_encoder(self, seconds: float) -> None:
        encoding = [request.reply for request in self._open.values() if request.reply]
        wait(encoding, timeout=seconds, return_when=FIRST_COMPLETED)

    def _withdraw(self, request: Open[Reply]) -> None:
        for ticket in request.tickets:
            self.engine.cancel(ticket)
            self._owners.pop(ticket, None)
        request.tickets = []
