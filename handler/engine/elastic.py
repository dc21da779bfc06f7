"""Batched calls that survive a CUDA out-of-memory error: the batch is halved, then and from then on."""

from __future__ import annotations

import sys
from collections.abc import Hashable, Sequence
from typing import Callable, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Elastic:
    """Runs batches in as few calls as memory allows; learns the limit of each ``key`` from what failed."""

    def __init__(self) -> None:
        self._limits: dict[Hashable, int] = {}
        self.shortages = 0
        """Out-of-memory errors met so far."""

    def run(
        self,
        key: Hashable,
        items: Sequence[Item],
        call: Callable[[Sequence[Item]], Sequence[Result]],
        most: int = sys.maxsize,
    ) -> list[Result | None]:
        """One result per item, in order; None for an item that does not fit alone. ``most`` bounds a call."""
        import torch

        results: list[Result | None] = []
        while len(results) < len(items):
            limit = min(most, self._limits.get(key, most))
            batch = items[len(results) : len(results) + limit]
            try:
                results += call(batch)
                continue
            except torch.cuda.OutOfMemoryError:
                # Nothing of the failed call may stay alive while memory is given back, so this goes on below.
                self.shortages += 1
            torch.cuda.empty_cache()
            if len(batch) == 1:
                results.append(None)
            else:
                self._limits[key] = len(batch) // 2
        return results
