"""The local cloud's clock: minutes can pass in seconds, and it can show another date."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timezone

UTC = timezone.utc  # noqa: UP017 - mypy checks as Python 3.10, which has no datetime.UTC
_LAST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()


class Clock:
    """Runs ``speed`` times as fast as the wall clock, from ``start`` (now, when not given)."""

    def __init__(self, speed: float = 1.0, start: datetime | None = None) -> None:
        self.speed = speed
        self._start = start.timestamp() if start else time.time()
        self._origin = time.monotonic()

    def now(self) -> datetime:
        """The cloud's time; it stops at the last second that a date can have."""
        elapsed = (time.monotonic() - self._origin) * self.speed
        return datetime.fromtimestamp(min(self._start + elapsed, _LAST), UTC)

    def sleep(self, seconds: float, stop: threading.Event | None = None) -> bool:
        """Let ``seconds`` of this clock pass; returns True at once when ``stop`` is set meanwhile."""
        return (stop or threading.Event()).wait(min(seconds / self.speed, threading.TIMEOUT_MAX))
