"""Trying again within a deadline, for requests that draw the same picture each time."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from pipeline.client.errors import PredictionError, ServerBusy
from pipeline.errors import MarqueeError

T = TypeVar("T")

LONGEST_WAIT_SECONDS = 20.0


@dataclass(frozen=True)
class Patience:
    """``deadline_seconds`` bound the whole call, at most ``attempts`` requests are sent.

    Before try n + 1 passes a random time from 0 to ``first_wait_seconds`` * 2 ** (n - 1), at most 20 s
    ("full jitter"), so that many clients of a busy server do not all come back at once. A server that
    says how long to wait (``Retry-After``) is not asked earlier. Raises MarqueeError for impossible values.
    """

    deadline_seconds: float = 300.0
    attempts: int = 5
    first_wait_seconds: float = 0.5

    def __post_init__(self) -> None:
        for name in ("deadline_seconds", "first_wait_seconds"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise MarqueeError(f"{name} is {value}; it must be a number of seconds, 0 or more")
        if self.attempts < 1:
            raise MarqueeError(f"attempts is {self.attempts}; it must be 1 or more")


def with_retries(attempt: Callable[[float], T], patience: Patience) -> T:
    """``attempt`` gets the seconds left; its PredictionError is raised once trying again is pointless."""
    deadline = time.monotonic() + patience.deadline_seconds
    for number in range(1, patience.attempts + 1):
        try:
            return attempt(max(0.1, deadline - time.monotonic()))
        except PredictionError as error:
            wait = wait_seconds(error, number, patience.first_wait_seconds)
            pointless = not error.retryable or number == patience.attempts
            if pointless or time.monotonic() + wait > deadline:
                raise
            time.sleep(wait)
    raise AssertionError("Patience allows at least one attempt")


def wait_seconds(error: PredictionError, number: int, first_wait_seconds: float) -> float:
    """The pause after try ``number`` (from 1) failed with ``error``."""
    longest = min(LONGEST_WAIT_SECONDS, first_wait_seconds * 2.0 ** min(number - 1, 60))
    asked = error.retry_after if isinstance(error, ServerBusy) else None
    return max(asked or 0.0, random.uniform(0.0, longest))
