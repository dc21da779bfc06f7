"""Watches a running server and reports workers that die, come back or keep dying."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from pipeline.serving.readiness import failure
from pipeline.serving.server import RunningServer
from pipeline.serving.worker_errors import death_cause

POLL_SECONDS = 1.0
# TorchServe waits 1, 1, 2, 3, 5... seconds between its own attempts, for maxRetryTimeoutInSec in all.
HOPELESS_DEATHS = 5


def watch(server: RunningServer, stopping: threading.Event) -> Iterator[str]:
    """Yield one sentence for each death and each return of a worker, until ``stopping`` is set.

    Deaths are known from the processes (worker_reports.py), never from a log, which clients can write into.
    Raises MarqueeError when the server has ended, or its worker died again and again.
    """
    seen = last_ready = len(server.worker_ends())
    while not stopping.wait(POLL_SECONDS):
        if not server.is_running():
            raise failure(server, f"TorchServe ended with code {server.launcher.returncode}")
        ends = server.worker_ends()
        for end in ends[seen:]:
            yield f"the worker died ({death_cause(end)}); TorchServe starts it again"
        seen = len(ends)
        if seen == last_ready:
            continue
        state = server.worker_state()
        if state.ready and not {end.pid for end in ends[last_ready:]} & set(state.pids):
            last_ready = seen
            yield "the worker is back"
        elif seen - last_ready >= HOPELESS_DEATHS:
            raise failure(server, f"the worker died {seen - last_ready} times in a row")
