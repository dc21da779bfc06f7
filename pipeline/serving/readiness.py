"""Readiness is a picture: /ping answers 200 while the model loads, crash-loops or has no process at all."""

from __future__ import annotations

import base64
import io
import time
from typing import Any

from pipeline.errors import MarqueeError
from pipeline.serving.server import RunningServer
from pipeline.serving.worker_errors import count_worker_deaths, server_complaints, worker_error, worker_lines

POLL_SECONDS = 0.1
LAST_WORDS_SECONDS = 3.0
SHOWN_LINES = 25
WARM_UP = {"instances": [{"prompt": "warm up", "seed": 0, "num_inference_steps": 2}]}


def wait_until_ready(server: RunningServer) -> None:
    """Wait for a READY worker, then (``options.warm_up``) for its first picture.

    Raises MarqueeError with the worker's own error as soon as the server has died or the load has failed.
    """
    deadline = time.monotonic() + server.options.start_seconds
    while not (state := server.worker_state()).ready:
        _check_progress(server)
        if state.missing:  # TorchServe opens its ports after it has registered the models it could unpack
            raise _refusal(server)
        if time.monotonic() > deadline:
            raise failure(server, f"the model was not loaded within {server.options.start_seconds:.0f} s")
        time.sleep(POLL_SECONDS)
    if server.options.warm_up:
        _draw_warm_up(server, max(1.0, deadline - time.monotonic()))


def _check_progress(server: RunningServer) -> None:
    if not server.is_running():
        raise failure(server, f"TorchServe ended with code {server.launcher.returncode}")
    if count_worker_deaths(server.logs) >= server.options.maximum_load_failures:
        raise failure(server, "the worker died while it loaded the model")


def _refusal(server: RunningServer) -> MarqueeError:
    lines = server_complaints(server.logs)[-SHOWN_LINES:]
    return MarqueeError("\n".join(["TorchServe refused the archive", *(f"  | {line}" for line in lines)]))


def failure(server: RunningServer, what: str) -> MarqueeError:
    """What happened, in one sentence with the worker's own error, and below it the worker's last lines."""
    error = _awaited_error(server)
    sentence = f"{what}: {error}" if error else what
    lines = worker_lines(server.logs, SHOWN_LINES) or [server.log_tail(SHOWN_LINES)]
    return MarqueeError("\n".join([sentence, *(f"  | {line}" for line in lines)]))


def _awaited_error(server: RunningServer) -> str | None:
    # TorchServe notices the death before it has read the last of what the worker printed.
    deadline = time.monotonic() + LAST_WORDS_SECONDS
    while (error := worker_error(server.logs)) is None and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return error


def _draw_warm_up(server: RunningServer, seconds: float) -> None:
    import httpx

    try:
        answer = httpx.post(server.predict_url, json=WARM_UP, timeout=seconds, trust_env=False)
    except httpx.TransportError as error:
        raise failure(server, f"the warm-up request got no answer ({error!r})") from error
    if answer.status_code != 200:
        raise failure(server, f"the warm-up request got {answer.status_code} ({answer.text[:500]})")
    if not _is_picture(answer.json()):
        raise failure(server, f"the warm-up answer is no picture ({answer.text[:200]})")


def _is_picture(answer: Any) -> bool:
    from PIL import Image

    try:
        prediction = answer["predictions"][0]
        encoded = prediction["image"] if isinstance(prediction, dict) else prediction
        Image.open(io.BytesIO(base64.b64decode(encoded))).load()
    except (LookupError, TypeError, ValueError, OSError):
        return False
    return True
