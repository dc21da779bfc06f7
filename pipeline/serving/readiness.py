"""Readiness is a picture: /ping answers 200 while the model loads, crash-loops or has no process at all."""

from __future__ import annotations

import base64
import io
import time
from typing import TYPE_CHECKING

from pipeline.errors import MarqueeError
from pipeline.serving.worker_errors import load_failures, worker_error

if TYPE_CHECKING:
    from pipeline.serving.torchserve import RunningServer

POLL_SECONDS = 0.1
WARM_UP = {"instances": [{"prompt": "warm up", "seed": 0, "num_inference_steps": 2}]}


def wait_until_ready(server: RunningServer) -> None:
    """Wait for a READY worker, then for its first picture.

    Raises MarqueeError with the worker's own error as soon as the server has died or the load has failed.
    """
    deadline = time.monotonic() + server.options.start_seconds
    while not server.worker_state().ready:
        check_progress(server)
        if time.monotonic() > deadline:
            raise _failure(server, f"the model was not loaded within {server.options.start_seconds:.0f} s")
        time.sleep(POLL_SECONDS)
    if server.options.warm_up:
        _draw_warm_up(server, max(1.0, deadline - time.monotonic()))


def check_progress(server: RunningServer) -> None:
    """Raise MarqueeError when waiting has become pointless."""
    if not server.is_running():
        raise _failure(server, f"TorchServe ended with code {server.launcher.returncode}")
    if load_failures(server.folder / "logs") >= server.options.maximum_load_failures:
        raise _failure(server, "the worker died while it loaded the model")


def _draw_warm_up(server: RunningServer, seconds: float) -> None:
    import httpx
    from PIL import Image

    try:
        answer = httpx.post(server.predict_url, json=WARM_UP, timeout=seconds)
    except httpx.TransportError as error:
        raise _failure(server, f"the warm-up request got no answer: {error!r}") from error
    if answer.status_code != 200:
        raise _failure(server, f"the warm-up request got {answer.status_code}: {answer.text[:500]}")
    try:
        Image.open(io.BytesIO(base64.b64decode(answer.json()["predictions"][0]))).load()
    except (LookupError, TypeError, ValueError, OSError) as error:
        raise _failure(server, f"the warm-up answer is no picture: {answer.text[:200]}") from error


def _failure(server: RunningServer, what: str) -> MarqueeError:
    error = worker_error(server.folder / "logs")
    words = f"{what}; the worker said: {error}" if error else what
    return MarqueeError(f"{words}\n{server.log_tail(30)}".rstrip())
