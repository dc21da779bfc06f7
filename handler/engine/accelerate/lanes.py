"""One call on each core, beside each other, instead of one call on all cores.

Threads that share one small operation wait for each other at its end, and waking one up costs more than the
operation (measured on two virtual cores: a step of 32 small rows 37 to 128 ms in one call, 26 to 35 in two).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Callable, TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")


class Lanes:
    """``count`` threads of one core each; from then on the process's other operations take one core, too."""

    def __init__(self, count: int) -> None:
        self.count = count
        torch.set_num_threads(1)  # OpenMP's number is the thread's own, MKL's the whole process's
        self._pool = ThreadPoolExecutor(count, "marquee-lane", torch.set_num_threads, (1,))

    def map(self, function: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
        """``function`` of each part, in order; one part alone may use all cores.

        Raises the first part's error that there is, when all parts have ended.
        """
        if len(parts) == 1:
            with self.all_cores():
                return [function(parts[0])]
        calls = [self._pool.submit(_inferring, function, part) for part in parts]
        wait(calls)  # after an error no call may still run when the caller tries again
        return [call.result() for call in calls]

    def split(self, rows: Sequence[Part]) -> list[Sequence[Part]]:
        """The rows in as many parts as there are lanes, as even as can be, none empty."""
        count = min(self.count, len(rows))
        bounds = [len(rows) * i // count for i in range(count + 1)]
        return [rows[start:end] for start, end in zip(bounds, bounds[1:])]

    @contextmanager
    def all_cores(self) -> Iterator[None]:
        """For one call on every core, while no lane runs."""
        torch.set_num_threads(self.count)
        try:
            yield
        finally:
            torch.set_num_threads(1)


def _inferring(function: Callable[[Part], Result], part: Part) -> Result:
    with torch.inference_mode():  # a property of each thread
        return function(part)
