"""Batched calls that survive errors.

Short of CUDA memory the batch is halved, then and from then on; after any other error its items are tried one
by one, so that only the culprit fails.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Hashable, Sequence
from typing import Callable, TypeVar

import torch

from handler.contract.job import Failure
from handler.engine.watchdog import end_if_gpu_is_lost

logger = logging.getLogger(__name__)

BROKEN = Failure(500, "internal", "The server failed on this picture; its log says why.")
NO_MEMORY = Failure(503, "out_of_memory", "The device had no memory left for this request; try again later.")

Item = TypeVar("Item")
Result = TypeVar("Result")


class Elastic:
    """Runs batches in as few calls as memory allows; learns the limit of each ``key`` from what failed."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._limits: dict[Hashable, int] = {}

    def run(
        self,
        key: Hashable,
        items: Sequence[Item],
        call: Callable[[Sequence[Item]], Sequence[Result]],
        most: int = sys.maxsize,
    ) -> list[Result | Failure | None]:
        """One result per item, in order; ``most`` bounds a call.

        None for an item that does not fit alone, BROKEN for one that fails alone with a RuntimeError.
        """
        results: list[Result | Failure | None] = []
        singly = 0
        while len(results) < len(items):
            limit = 1 if len(results) < singly else min(most, self._limits.get(key, most))
            batch = items[len(results) : len(results) + limit]
            try:
                results += call(batch)
                continue
            except torch.cuda.OutOfMemoryError:
                pass  # nothing of the failed call may stay alive while memory is given back: go on below
            except RuntimeError:
                logger.exception("a call of %d failed", len(batch))
                if len(batch) == 1:
                    end_if_gpu_is_lost(self._device)
                    results.append(BROKEN)
                else:
                    singly = len(results) + len(batch)
                continue
            torch.cuda.empty_cache()
            if len(batch) == 1:
                results.append(None)
            else:
                self._limits[key] = len(batch) // 2
        return results
