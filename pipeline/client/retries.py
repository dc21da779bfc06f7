"""Trying again within a deadline, for requests that draw the same picture each time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from pipeline.client.errors import PredictionError, ServerBusy

T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """``deadline_seconds`` bound the whole call; waits start at ``first_wait_seconds`` and double."""

    deadline_seconds: float = 300.0
    attempts: int = 5
    first_wait_seconds: float = 0.5


def with_retries(attempt: Callable[[float], T], patience: Patience) -> T:
    """``attempt`` gets the seconds left; its PredictionError is raised once trying again is pointless."""
    deadline = time.monotonic() + patience.deadline_seconds
    for number in range(1, patience.attempts + 1):
        try:
            return attempt(max(0.1, deadline - time.monotonic()))
        except PredictionError as error:
            wait = _wait(error, patience.first_wait_seconds * 2 ** (number - 1))
            pointless = not error.retryable or number == patience.attempts
            if pointless or time.monotonic() + wait > deadline:
                raise
            time.sleep(wait)
    raise AssertionError("attempts must be at least 1")


def _wait(error: PredictionError, usual: float) -> float:
    asked = error.retry_after if isinstance(error, ServerBusy) else None
    return usual if asked is None else asked
