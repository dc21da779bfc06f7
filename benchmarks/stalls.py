"""Repeats a measurement during which the whole machine stood still, as virtual machines do at times."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")
logger = logging.getLogger(__name__)

TICK_SECONDS = 0.05
STALL_SECONDS = 0.5
ATTEMPTS = 3


class StallWatch:
    """Sleeps in short ticks beside a measurement; ``longest`` is the worst delay of a tick in seconds."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> StallWatch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _tick(self) -> None:
        before, over = time.perf_counter(), False
        while not over:
            over = self._over.wait(TICK_SECONDS)
            now = time.perf_counter()
            self.longest = max(self.longest, now - before - TICK_SECONDS)
            before = now


def unstalled(measure: Callable[[], T]) -> T:
    """Run ``measure`` again while it meets a stall, three times at most; the last result counts."""
    for attempt in range(1, ATTEMPTS + 1):
        with StallWatch() as watch:
            result = measure()
        if watch.longest < STALL_SECONDS:
            break
        outcome = "measured again" if attempt < ATTEMPTS else "kept all the same"
        logger.warning("the machine stood still for %.1f s: %s", watch.longest, outcome)
    return result
