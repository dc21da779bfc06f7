"""How long a step takes, measured, and how long a new job would have to wait."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

SMOOTHING = 0.1
MOST_SECONDS = 600
"""The longest Retry-After given; further away the estimate means nothing."""


class Pace:
    """A smoothed duration of one engine step, in seconds; 0 before the first."""

    def __init__(self) -> None:
        self.step_seconds = 0.0

    def record(self, seconds: float) -> None:
        if self.step_seconds == 0.0:
            self.step_seconds = seconds
        else:
            self.step_seconds += SMOOTHING * (seconds - self.step_seconds)

    def seconds_to_wait(self, live: Sequence[int], waiting: Sequence[int], places: int) -> list[float]:
        """Of each job that waits, the seconds until it has a place; the next in line is first.

        ``live`` are the steps that each live image has left, ``waiting`` those that each job takes.
        """
        free_after = sorted([*live, *[0] * (places - len(live))])
        seconds = []
        for steps in waiting:
            begins = free_after[0]
            seconds.append(begins * self.step_seconds)
            heapq.heapreplace(free_after, begins + steps)
        return seconds

    def retry_after_seconds(self, waiting_steps: int, live_steps: int, places: int) -> int:
        """Whole seconds, at least one, until all the steps ahead are done with ``places`` images a step."""
        seconds = self.step_seconds * (waiting_steps + live_steps) / places
        return min(MOST_SECONDS, max(1, math.ceil(seconds)))
