"""Draws the jobs of a request together and makes one reply of their outcomes. Every door uses this."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Callable, Generic, TypeVar, Union

from handler.contract.drawing import Drawing, Draws
from handler.contract.events import Event
from handler.contract.job import Failure, Job, Outcome

Reply = TypeVar("Reply")

MakeReply = Callable[[Sequence[Union[Outcome, None]]], Reply]
"""Makes a reply of one outcome per job; None for a job that was not drawn because another one was refused."""

OnJobEvent = Callable[[int, Event], None]
"""As ``OnEvent``, with the index of the job in its request before it."""


class PendingReply(Generic[Reply]):
    """A request that is being drawn or encoded; ``reply`` is the future of its answer. For any thread."""

    def __init__(
        self, pool: ThreadPoolExecutor, make_reply: MakeReply[Reply], drawings: Sequence[Drawing]
    ) -> None:
        self.reply: Future[Reply] = Future()
        self._pool, self._make_reply, self._drawings = pool, make_reply, drawings
        self._lock = threading.Lock()
        self._undrawn = len(drawings)
        self._closed = False  # encoded or cancelled: no outcome changes the reply any more
        self.reply.add_done_callback(self._end_if_cancelled)
        for drawing in drawings:
            drawing.outcome.add_done_callback(self._note)

    def cancel(self) -> None:
        """Stops drawing; its places are free before the next step. ``reply.cancel()`` does the same."""
        self.reply.cancel()

    def give_up(self, failure: Failure) -> None:
        """Answers with the pictures drawn so far, and with ``failure`` for the rest."""
        if self._close():
            for drawing in self._drawings:
                drawing.cancel()
            outcomes = [drawing.outcome for drawing in self._drawings]
            self._encode([failure if drawn.cancelled() else drawn.result() for drawn in outcomes])

    def _note(self, drawn: Future[Outcome]) -> None:
        with self._lock:
            self._undrawn -= not drawn.cancelled()
            whole = self._undrawn == 0
        if whole and self._close():
            self._encode([drawing.outcome.result() for drawing in self._drawings])

    def _close(self) -> bool:
        """Closes the request; returns whether it was open."""
        with self._lock:
            was_open, self._closed = not self._closed, True
            return was_open

    def _encode(self, outcomes: Sequence[Outcome]) -> None:
        self._pool.submit(self._make_reply, outcomes).add_done_callback(self._finish)

    def _finish(self, made: Future[Reply]) -> None:
        if made.cancelled():  # the pool has been shut down
            self.reply.cancel()
        elif self.reply.set_running_or_notify_cancel():
            error = made.exception()
            if error is None:
                self.reply.set_result(made.result())
            else:
                self.reply.set_exception(error)

    def _end_if_cancelled(self, reply: Future[Reply]) -> None:
        if reply.cancelled() and self._close():
            reply.set_running_or_notify_cancel()  # wakes the threads that wait for it
            for drawing in self._drawings:
                drawing.cancel()


class Answers(Generic[Reply]):
    """Gives requests to the engine, and makes their replies in ``encoders`` threads of its own."""

    def __init__(self, core: Draws, encoders: int = 2) -> None:
        self._core = core
        self._pool = ThreadPoolExecutor(encoders, thread_name_prefix="marquee-encode")

    def answer(
        self, jobs: Sequence[Job], make_reply: MakeReply[Reply], on_event: OnJobEvent | None = None
    ) -> PendingReply[Reply]:
        """Starts a request. Where one job is refused, none is drawn, and the reply is ready at once.

        ``on_event`` may then have heard that others of its jobs were queued.
        """
        refused = [self._core.check(job) for job in jobs]
        drawings: list[Drawing] = []
        for index, job in enumerate(jobs if not any(refused) else ()):
            drawing = self._core.draw(job, partial(on_event, index) if on_event else None)
            if drawing.refused:
                refusal = drawing.outcome.result()
                assert isinstance(refusal, Failure)
                refused = [refusal] * len(jobs)
                for other in drawings:
                    other.cancel()
                drawings = []
                break
            drawings.append(drawing)
        pending = PendingReply(self._pool, make_reply, drawings)
        if not drawings:
            pending.reply.set_result(make_reply(refused))
        return pending

    def close(self) -> None:
        """Ends the threads; replies that were not begun are cancelled."""
        self._pool.shutdown(cancel_futures=True)
