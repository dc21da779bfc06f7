"""Ends the worker process when a step hangs or its GPU is lost: TorchServe starts a new one.

Nothing less helps: no thread can stop a step, and a process in whose context a kernel has failed can use its
GPU no more (CUDA runtime API, "sticky" errors).
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import threading
import time
from collections.abc import Iterator

import torch

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
                end_worker(f"a step took longer than {self._seconds:g} s")


def end_if_gpu_is_lost(device: torch.device) -> None:
    """Ends the worker where a GPU answers nothing but errors any more; a CPU is never lost."""
    if device.type == "cuda":
        try:
            torch.cuda.synchronize(device)
        except RuntimeError as error:
            end_worker(f"the GPU is lost to this process: {error}")


def end_worker(reason: str) -> None:
    logger.critical("%s; this worker ends itself", reason)
    faulthandler.dump_traceback()
    os._exit(EXIT_CODE)
