"""An engine that steps in a thread of its own: it goes on drawing while its caller talks to a server.

Between two calls of a handler TorchServe takes milliseconds for every open request; on an engine that waits
for it that is time in which nothing is drawn.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Iterable
from typing import Callable

from handler.contract.job import Failure, Job
from handler.engine.engine import Engine, Finished
from handler.engine.ticket import Ticket
from handler.engine.watchdog import Watchdog, end_worker

logger = logging.getLogger(__name__)

LEASE_SECONDS = 1.0
"""How long it draws on when nobody asks: the last client to hang up may leave nobody who would say so."""

EXIT_SECONDS = 10.0
"""How long the process waits for a step when it ends: a thread inside torch would abort it."""


class Runner:
    """Steps ``engine`` while it is busy; ``tell`` is called from its thread after every step.

    One thread calls the methods. What was cancelled is gone before the next step. An exception in a step is
    the failure of those who were in it, and of nobody else.
    """

    def __init__(self, engine: Engine, watchdog: Watchdog, tell: Callable[[], None]) -> None:
        import torch

        self.engine = engine
        self._watchdog = watchdog
        self._tell = tell
        self._changed = threading.Condition()
        self._cancelled: list[Ticket] = []
        self._finished: list[Finished] = []
        self._lease_ends = 0.0
        self._closed = False
        # OpenMP's number of threads is each thread's own.
        self._thread = threading.Thread(
            target=self._run, args=(torch.get_num_threads(),), name="marquee-engine", daemon=True
        )
        self._thread.start()
        atexit.register(self._stop, EXIT_SECONDS)

    def submit(self, job: Job) -> Ticket | Failure:
        """As ``Engine.submit``, at once: it waits for no step."""
        ticket = self.engine.submit(job)
        with self._changed:
            self._changed.notify()
        return ticket

    def cancel(self, tickets: Iterable[Ticket]) -> None:
        """Forgets the jobs before the next step; what has finished of them may still be told."""
        begun = [ticket for ticket in tickets if not self.engine.withdraw(ticket)]
        with self._changed:
            self._cancelled += begun
            self._changed.notify()

    def take(self, until: float) -> list[Finished]:
        """What has finished since the last time; the caller is back by ``until`` (time.monotonic)."""
        with self._changed:
            self._lease_ends = until + LEASE_SECONDS
            self._changed.notify()
            finished, self._finished = self._finished, []
            return finished

    def close(self) -> None:
        """Ends the thread, after the step that runs, and the engine."""
        atexit.unregister(self._stop)
        self._stop(None)
        self.engine.close()

    def _stop(self, seconds: float | None) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(seconds)

    def _run(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        try:
            while self._prepare_step():
                finished = self._step()
                with self._changed:
                    self._finished += finished
                self._tell()
        except BaseException:
            logger.exception("the engine's thread failed")
            end_worker("nothing would be answered any more")

    def _step(self) -> list[Finished]:
        try:
            with self._watchdog.watch():
                return self.engine.step()
        except Exception:
            logger.exception("a step failed")
            return self.engine.give_up()

    def _prepare_step(self) -> bool:
        """Waits until a step is due; False when there is to be none any more."""
        with self._changed:
            while not self._closed:
                for ticket in self._cancelled:
                    self.engine.cancel(ticket)
                self._cancelled.clear()
                if self.engine.busy and time.monotonic() < self._lease_ends:
                    return True
                self._changed.wait()
            return False
