"""Ends the worker process when one step hangs: no thread can stop it, but TorchServe starts a new process."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import threading
import time
from collections.abc import Iterator

logger = logging.getLogger(__name__)

EXIT_CODE = 86


class Watchdog:
    """A thread that calls ``os._exit`` when a watched block takes longer than ``seconds``."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadline: float | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._guard, name="marquee-watchdog", daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        self._deadline = time.monotonic() + self._seconds
        try:
            yield
        finally:
            self._deadline = None

    def close(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _guard(self) -> None:
        while not self._stopped.wait(min(1.0, self._seconds / 4)):
            deadline = self._deadline
            if deadline is not None and time.monotonic() > deadline:
                logger.critical("a step took longer than %g s; this worker ends itself", self._seconds)
                faulthandler.dump_traceback()
                os._exit(EXIT_CODE)
