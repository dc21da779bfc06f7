"""An engine that steps in a thread of its own, and its front for every door: jobs in, futures out.

The engine draws on while a door talks to its server. Between two calls of a handler TorchServe takes
milliseconds for every open request; an engine that waited for it would draw nothing in that time.
"""

from __future__ import annotations

import atexit
import logging
import math
import threading
import time
from concurrent.futures import Future
from functools import partial

import torch

from handler.contract.drawing import Drawing, OnEvent
from handler.contract.events import Done, Event, Failed, failed
from handler.contract.job import Failure, Job, Outcome
from handler.engine.engine import Engine, Finished
from handler.engine.ticket import Ticket
from handler.engine.watchdog import Watchdog, end_worker

logger = logging.getLogger(__name__)

EXIT_SECONDS = 10.0
"""How long the process waits for a step when it ends: a thread inside torch would abort it."""


class Runner:
    """Steps ``engine`` while it is busy. Any thread may call its methods.

    An exception in a step is the failure of the jobs that were in it, and of no others. ``threads`` is
    torch's number for the thread that steps; by default the caller's own.
    """

    def __init__(self, engine: Engine, watchdog: Watchdog, threads: int | None = None) -> None:
        self.engine = engine
        self._watchdog = watchdog
        self._changed = threading.Condition()
        self._outcomes: dict[Ticket, tuple[Future[Outcome], Listener]] = {}
        self._cancelled: list[Ticket] = []
        self._draws_until = math.inf
        self._closed = False
        threads = threads or torch.get_num_threads()  # OpenMP's number is each thread's own
        self._thread = threading.Thread(target=self._run, args=(threads,), name="marquee-engine", daemon=True)
        self._thread.start()
        atexit.register(self._stop, EXIT_SECONDS)

    def check(self, job: Job) -> Failure | None:
        """What can be said against the job before it is drawn: a 400, or None."""
        return self.engine.check(job)

    def draw(self, job: Job, on_event: OnEvent | None = None) -> Drawing:
        """Takes the job into the queue, or refuses it with a 429 where that is full. Waits for no step.

        ``on_event``: as in ``Draws.draw``.
        """
        outcome: Future[Outcome] = Future()
        listener = Listener(outcome, on_event)
        # Its lock, so that queued is heard first; the other, so that the job's future is known when it ends.
        with listener.lock, self._changed:
            ticket = self.engine.submit(job, listener.tell if on_event else None)
            if not isinstance(ticket, Failure):
                self._outcomes[ticket] = outcome, listener
                self._changed.notify()
        if isinstance(ticket, Failure):
            listener.tell(failed(ticket))
            outcome.set_result(ticket)
            return Drawing(outcome, refused=True)
        outcome.add_done_callback(partial(self._forget_if_cancelled, ticket))
        return Drawing(outcome)

    def draw_until(self, moment: float) -> None:
        """Draws until ``moment`` (``time.monotonic()``), then pauses until a later call gives a later moment.

        Without a call it never pauses. TorchServe's door needs this: it does not learn at once when its last
        client has hung up.
        """
        with self._changed:
            self._draws_until = moment
            self._changed.notify()

    def close(self) -> None:
        """Ends the thread, after the step that runs, and the engine."""
        atexit.unregister(self._stop)
        self._stop(None)
        self.engine.close()

    def _forget_if_cancelled(self, ticket: Ticket, outcome: Future[Outcome]) -> None:
        if not outcome.cancelled():
            return
        with self._changed:
            known = self._outcomes.pop(ticket, None) is not None
            if known and not self.engine.withdraw(ticket):
                self._cancelled.append(ticket)
            self._changed.notify()
        if known:
            outcome.set_running_or_notify_cancel()  # wakes the threads that wait for it

    def _stop(self, seconds: float | None) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(seconds)

    def _run(self, threads: int) -> None:
        torch.set_num_threads(threads)
        try:
            while self._prepare_step():
                for ticket, outcome in self._step():
                    self._hand_over(ticket, outcome)
        except BaseException:
            logger.exception("the engine's thread failed")
            end_worker("no request would be answered any more")

    def _step(self) -> list[Finished]:
        try:
            with self._watchdog.watch():
                return self.engine.step()
        except Exception:
            logger.exception("a step failed")
            return self.engine.give_up()

    def _hand_over(self, ticket: Ticket, outcome: Outcome) -> None:
        with self._changed:
            waiting, listener = self._outcomes.pop(ticket, (None, None))
        # A job may finish in the very step in which it is cancelled.
        if waiting and listener and waiting.set_running_or_notify_cancel():
            listener.tell(_last_event(outcome))
            waiting.set_result(outcome)

    def _prepare_step(self) -> bool:
        """Waits until a step is due; False when there is to be none any more."""
        with self._changed:
            while not self._closed:
                for ticket in self._cancelled:
                    self.engine.cancel(ticket)
                self._cancelled.clear()
                if self.engine.busy and time.monotonic() < self._draws_until:
                    return True
                self._changed.wait()
            return False


def _last_event(outcome: Outcome) -> Event:
    return failed(outcome) if isinstance(outcome, Failure) else Done(sum(outcome.seconds.values()))


class Listener:
    """Tells a job's events until one call fails: one listener's mistake must not end everybody's step.

    ``lock`` is held for each call. Who holds it keeps the others' events back.
    """

    def __init__(self, outcome: Future[Outcome], on_event: OnEvent | None) -> None:
        self.lock = threading.RLock()
        self._outcome, self._on_event = outcome, on_event

    def tell(self, event: Event) -> None:
        """Nothing is told of a job that is cancelled."""
        with self.lock:
            if self._on_event is None or self._outcome.cancelled():
                return
            try:
                self._on_event(event)
                if isinstance(event, (Done, Failed)):
                    self._on_event = None
            except Exception:
                self._on_event = None
                logger.exception("a listener to events failed; it is not called again")
