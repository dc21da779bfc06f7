"""Looking after a server while it serves: a worker that died, one that came back, one that keeps dying."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from pipeline.serving.readiness import failure
from pipeline.serving.server import RunningServer
from pipeline.serving.worker_errors import count_worker_deaths, worker_error

POLL_SECONDS = 1.0
# TorchServe waits 1, 1, 2, 3, 5... seconds between its own attempts, for maxRetryTimeoutInSec in all.
HOPELESS_DEATHS = 5


def watch(server: RunningServer, stopping: threading.Event) -> Iterator[str]:
    """One sentence for each thing that happens, until ``stopping`` is set.

    Raises MarqueeError when the server has ended, or its worker died again and again.
    """
    seen = last_ready = count_worker_deaths(server.logs)
    while not stopping.wait(POLL_SECONDS):
        if not server.is_running():
            raise failure(server, f"TorchServe ended with code {server.launcher.returncode}")
        deaths = count_worker_deaths(server.logs)
        if deaths > seen:
            seen = deaths
            words = worker_error(server.logs) or "it left no word"
            yield f"the worker died ({words}); TorchServe starts it again"
        if deaths == last_ready:
            continue
        if server.worker_state().ready:
            last_ready = deaths
            yield "the worker is back"
        elif deaths - last_ready >= HOPELESS_DEATHS:
            raise failure(server, f"the worker died {deaths - last_ready} times in a row")
