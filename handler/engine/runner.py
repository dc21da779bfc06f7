"""An engine that steps in a thread of its own: it goes on drawing while its caller talks to a server.

Between two calls of a handler TorchServe takes milliseconds for every open request; on an engine that waits
for it that is time in which nothing is drawn.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Callable

from handler.engine.engine import Engine, Finished
from handler.engine.ticket import Ticket
from handler.engine.watchdog import Watchdog
from handler.job import Failure, Job

LEASE_SECONDS = 1.0
"""How long it draws on when nobody asks: the last client to hang up may leave nobody who would say so."""


class Runner:
    """Steps ``engine`` while it is busy; ``tell`` is called from its thread after every step.

    One thread calls the methods. What was cancelled is gone before the next step.
    """

    def __init__(self, engine: Engine, watchdog: Watchdog, tell: Callable[[], None]) -> None:
        import torch

        self.engine = engine
        self._watchdog = watchdog
        self._tell = tell
        self._changed = threading.Condition()
        self._cancelled: list[Ticket] = []
        self._finished: list[Finished] = []
        self._error: BaseException | None = None
        self._lease_ends = 0.0
        self._closed = False
        # OpenMP's number of threads is each thread's own.
        self._thread = threading.Thread(
            target=self._run, args=(torch.get_num_threads(),), name="marquee-engine", daemon=True
        )
        self._thread.start()

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
        """What has finished since the last time; the caller is back at ``until`` (monotonic) at the latest.

        Raises what a step raised, every time, until ``recover`` is called; there are no steps meanwhile.
        """
        with self._changed:
            if self._error is not None:
                raise self._error
            self._lease_ends = until + LEASE_SECONDS
            self._changed.notify()
            finished, self._finished = self._finished, []
            return finished

    def recover(self) -> None:
        """Steps again after an error, with what has not been cancelled."""
        with self._changed:
            self._error = None
            self._finished.clear()
            self._changed.notify()

    def close(self) -> None:
        """Ends the thread, after the step that runs, and the engine."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        self.engine.close()

    def _run(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        while self._prepare_step():
            finished: list[Finished] = []
            error = None
            try:
                with self._watchdog.watch():
                    finished = self.engine.step()
            except BaseException as raised:  # the caller's to answer: ``take`` raises it there
                error = raised
            with self._changed:
                self._finished += finished
                self._error = error
            self._tell()

    def _prepare_step(self) -> bool:
        """Waits until a step is due; False when there is to be none any more."""
        with self._changed:
            self._changed.wait_for(self._is_due)
            for ticket in self._cancelled:
                self.engine.cancel(ticket)
            self._cancelled.clear()
            return not self._closed

    def _is_due(self) -> bool:
        if self._closed or self._cancelled:
            return True
        return self._error is None and self.engine.busy and time.monotonic() < self._lease_ends
