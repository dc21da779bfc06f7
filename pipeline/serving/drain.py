"""Ending without losing work: the handler refuses what is new, and says when what was running is done.

TorchServe itself has no drain: SIGTERM resets every open connection. So a request that only we can write goes through
the same queue as everybody's (handler/drain.py). All that came before it is drawn, all that comes after it gets 503.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.serving.torchserve import RunningServer

POLL_SECONDS = 0.2


def close_and_wait(server: RunningServer, seconds: float) -> bool:
    """Refuse new requests and wait until every worker has nothing left; False when ``seconds`` were not enough."""
    deadline = time.monotonic() + seconds
    idle: set[int] = set()
    while time.monotonic() < deadline:
        state = server.worker_state()
        if not state.pids:  # no worker, so nothing that could still finish
            return state.pending == 0
        answer = _ask_to_close(server, deadline - time.monotonic())
        if answer is not None:
            pid, running = answer
            idle = idle | {pid} if running == 0 else idle - {pid}
            if idle >= set(state.pids):
                return True
        time.sleep(POLL_SECONDS)
    server.drain_file.touch()
    return False


def _ask_to_close(server: RunningServer, seconds: float) -> tuple[int, int] | None:
    """The process that took the request and how many others it still draws; None when the queue was full."""
    import httpx

    request = {"instances": [{"drain": server.drain_file.name}]}
    try:
        answer = httpx.post(server.predict_url, json=request, timeout=max(1.0, seconds))
        told = answer.json()["predictions"][0]
        return int(told["pid"]), int(told["running"])
    except (httpx.TransportError, LookupError, TypeError, ValueError):
        return None
