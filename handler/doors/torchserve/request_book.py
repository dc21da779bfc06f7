"""The open requests of TorchServe's worker, which asks for answers from one thread, call after call.

``call`` waits for a moment, one iteration of continuous batching; ``finish_all`` is one plain batch. While
nobody calls, nobody can tell that a client has hung up, so drawing pauses a second after the last call.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

from handler.contract.job import Failure, Job
from handler.doors.answers import Answers, MakeReply, PendingReply

if TYPE_CHECKING:
    from handler.engine.engine import Engine
    from handler.engine.runner import Runner

Reply = TypeVar("Reply")

CALL_SECONDS = 0.05
"""The longest a newcomer waits for the call before it to end, where steps are short."""

LONGEST_CALL_SECONDS = 0.25
STEP_SHARE = 0.05
"""Where steps take seconds a call may last this share of one: a newcomer must wait for its end anyhow."""

LEASE_SECONDS = 1.0
"""How long the engine draws on after a call should have come."""

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

    def admit(self, name: str, jobs: Sequence[Job], make_reply: MakeReply[Reply]) -> None:
        """Opens a request. Where one of its jobs is refused none is taken, and the request is answered.

        The next call hands such an answer over, while the HTTP status can still say so.
        """
        self._open[name] = self._answers.answer(jobs, make_reply)
        self._open[name].reply.add_done_callback(lambda _: self._news.set())

    def cancel(self, name: str) -> None:
        """The request's caller is gone: its places are free before the next step."""
        self._open.pop(name).cancel()

    def abandon(self) -> None:
        """Gives up every open request."""
        for name in list(self._open):
            self.cancel(name)

    @property
    def call_seconds(self) -> float:
        """How long a call may wait: each costs TorchServe work on the cores that draw.

        Where all places are taken nobody could join before an answer, which ends the call.
        """
        if self.engine.live_count >= self.engine.options.max_live:
            return LONGEST_CALL_SECONDS
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
        """Waits until every open request is answered; what is not drawn after ``seconds`` fails alone."""
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
