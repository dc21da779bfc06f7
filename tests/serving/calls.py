"""Requests sent at one moment, without the client's retries, and pictures to compare."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
from PIL import Image

DEADLINE_SECONDS = 300.0


def post(url: str, body: Any) -> httpx.Response:
    return httpx.post(url, json=body, timeout=DEADLINE_SECONDS, trust_env=False)


def post_together(url: str, bodies: Sequence[Any]) -> list[httpx.Response | httpx.TransportError]:
    """Every answer in order, or the error of a connection that broke off; one that hangs is a ReadTimeout."""
    start = threading.Barrier(len(bodies))

    def send(body: Any) -> httpx.Response | httpx.TransportError:
        start.wait()
        try:
            return post(url, body)
        except httpx.TransportError as error:
            return error

    with ThreadPoolExecutor(len(bodies)) as callers:
        return list(callers.map(send, bodies))


def pixels(prediction: str) -> Any:
    """The picture of a prediction, as numbers from 0 to 255."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(prediction))).convert("RGB"), np.float32)


def difference(one: str, other: str) -> float:
    """The mean distance of two pictures' pixels."""
    return float(np.abs(pixels(one) - pixels(other)).mean())
