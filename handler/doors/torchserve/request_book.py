"""The open requests of TorchServe's worker, which asks for answers from one thread, call after call.

``call`` is one iteration of continuous batching and returns soon; ``finish_all`` is one plain batch. A client
that has hung up is reported only in the next call, so drawing pauses a second after the last call.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

from handler.contract.job import Failure, Job
from handler.doors.answers import Answers, MakeReply, OnJobEvent, PendingReply

if TYPE_CHECKING:
    from handler.engine.engine import Engine
    from handler.engine.runner import Runner

Reply = TypeVar("Reply")

CALL_SECONDS = 0.05
"""How long a call lasts at most where steps are short; a new request waits for its end."""

LONGEST_CALL_SECONDS = 0.25
STEP_SHARE = 0.05
"""Where steps take seconds, a call may last this share of a step: a new request waits for the step anyhow."""

LEASE_SECONDS = 1.0
"""How long the engine goes on drawing when the next call does not come."""

TOOK_TOO_LONG = Failure(
    504,
    "took_too_long",
    "The server had no time left to finish this request together with the others of its batch; ask for fewer"
    " steps, fewer instances or fewer pixels.",
)


class RequestBook(Generic[Reply]):
    """Keeps requests by name until they are answered. Its methods are called from one thread."""

    def __init__(self, runner: Runner, encoders: int = 2) -> None:
        self._runner = runner
        self._answers: Answers[Reply] = Answers(runner, encoders)
        self._news = threading.Event()
        self._open: dict[str, PendingReply[Reply]] = {}
        runner.draw_until(0.0)  # a batch is drawn from the first call on, when all of it is here

    @property
    def engine(self) -> Engine:
        return self._runner.engine

    @property
    def open_requests(self) -> Sequence[str]:
        return list(self._open)

    def admit(
        self,
        name: str,
        jobs: Sequence[Job],
        make_reply: MakeReply[Reply],
        on_event: OnJobEvent | None = None,
    ) -> None:
        """Opens a request. Where one of its jobs is refused, no job is drawn, and the reply is the refusal.

        The next call returns that reply, when the HTTP status has not been sent yet.
        """
        self._open[name] = self._answers.answer(jobs, make_reply, on_event)
        self._open[name].reply.add_done_callback(lambda _: self._news.set())

    def cancel(self, name: str) -> None:
        """Drops a request whose client has hung up; its places are free before the next step."""
        self._open.pop(name).cancel()

    def abandon(self) -> None:
        """Gives up every open request."""
        for name in list(self._open):
            self.cancel(name)

    @property
    def call_seconds(self) -> float:
        """How long a call may wait. Each call costs TorchServe work on the cores that draw."""
        return max(CALL_SECONDS, min(LONGEST_CALL_SECONDS, STEP_SHARE * self.engine.pace.step_seconds))

    def call(self, seconds: float) -> Mapping[str, Reply]:
        """Waits until a request is answered, at most ``seconds``; returns the answers."""
        end = time.monotonic() + seconds
        self._runner.draw_until(end + LEASE_SECONDS)
        while True:
            self._news.clear()
            answered = self._take_answers()
            left = end - time.monotonic()
            if answered or not self._open or left <= 0:
                return answered
            self._news.wait(left)

    def finish_all(self, seconds: float = math.inf) -> Mapping[str, Reply]:
        """Waits until every open request is answered. One that is not drawn after ``seconds`` fails alone."""
        end = time.monotonic() + seconds
        answers: dict[str, Reply] = {}
        while self._open:
            answers.update(self.call(max(0.0, min(1.0, end - time.monotonic()))))
            if time.monotonic() >= end:
                for request in self._open.values():
                    request.give_up(TOOK_TOO_LONG)
                end = math.inf
        return answers

    def close(self) -> None:
        self._answers.close()
        self._runner.close()

    def _take_answers(self) -> dict[str, Reply]:
        """The answers that are ready; their requests are closed."""
        done = [name for name, request in self._open.items() if request.reply.done()]
        return {name: self._open.pop(name).reply.result() for name in done}
