"""Stops a server without losing work: new requests are refused, and running ones are finished first.

TorchServe has no drain of its own; SIGTERM resets every open connection. So marquee sends a request with a
secret name through TorchServe's queue (see the handler's drain.py): earlier requests are drawn, later ones
get 503. Where the queue is full, marquee makes the drain file itself. The handler then refuses the waiting
requests too, the queue empties, and the request that asks for the number of running ones gets in.
"""

from __future__ import annotations

import time
from pathlib import Path

from pipeline.serving.worker_state import read_worker_state

POLL_SECONDS = 0.2
# The last refusals leave the server together with the answer that ends the drain.
FAREWELL_SECONDS = 0.5


def close_and_wait(predict_url: str, management_url: str, drain_file: Path, seconds: float) -> bool:
    """Refuse new requests and wait until no worker has one left; False when ``seconds`` were not enough."""
    deadline = time.monotonic() + seconds
    model_name = predict_url.rpartition("/")[2]
    idle: set[int] = set()
    while (left := deadline - time.monotonic()) > 0:
        workers = set(read_worker_state(management_url, model_name).pids)
        answer = _ask_to_close(predict_url, drain_file, left)
        if answer is not None:
            pid, running = answer
            idle = idle | {pid} if running == 0 else idle - {pid}
        if workers <= idle:  # with no worker at all there is nothing that could still finish
            time.sleep(FAREWELL_SECONDS)
            return True
        time.sleep(POLL_SECONDS)
    return False


def _ask_to_close(predict_url: str, drain_file: Path, seconds: float) -> tuple[int, int] | None:
    """The process that took the request and how many others it still draws; None for any other answer."""
    import httpx

    try:
        body = {"instances": [{"drain": drain_file.name}]}
        answer = httpx.post(predict_url, json=body, timeout=max(1.0, seconds), trust_env=False)
        if answer.status_code == 503:  # TorchServe's queue is full; the handler answers this request with 200
            drain_file.touch()
        report = answer.json()["predictions"][0]
        return int(report["pid"]), int(report["running"])
    except (httpx.TransportError, LookupError, TypeError, ValueError):
        return None
