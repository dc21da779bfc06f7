"""The one table from an HTTP answer to an exception."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pipeline.client.errors import (
    InvalidRequest,
    PayloadTooLarge,
    PredictionError,
    Problem,
    ServerBusy,
    ServerFailed,
)


def error_of(status: int, text: str, headers: Mapping[str, str]) -> PredictionError:
    """The exception for a status that is not 200; knows marquee's own error shape and TorchServe's."""
    told = _told(text)
    message = str(told.get("message") or text[:300] or f"status {status} without a word")
    if status == 400:
        return InvalidRequest(message, tuple(map(_problem, told.get("problems") or ())))
    if status == 413:
        cure = "ask for fewer or smaller pictures in one request, or for jpeg or webp"
        return PayloadTooLarge(message, cure, status)
    if status in (429, 503):
        return ServerBusy(message, status, _seconds(headers.get("retry-after")))
    return ServerFailed(f"the server answered {status}: {message}", status=status)


def error_inside(answer: Any, text: str, headers: Mapping[str, str]) -> PredictionError | None:
    """The exception for a failure under status 200, which happened after the headers had left."""
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict):
        return None
    status = error.get("status")
    return error_of(status if isinstance(status, int) else 500, text, headers)


def _told(text: str) -> dict[str, Any]:
    # marquee says {"error": {"message", "problems"}}, TorchServe {"code", "type", "message"}.
    try:
        body = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(body, dict):
        return {}
    error = body.get("error", body)
    return error if isinstance(error, dict) else {"message": error}


def _problem(told: Any) -> Problem:
    if not isinstance(told, dict):
        return Problem(None, None, str(told))
    return Problem(
        instance=told.get("instance"),
        field=told.get("field"),
        message=str(told.get("message", told)),
        value=told.get("value"),
        allowed=told.get("allowed"),
        did_you_mean=told.get("did_you_mean"),
    )


def _seconds(header: str | None) -> float | None:
    try:
        return None if header is None else max(0.0, float(header))
    except ValueError:  # an HTTP date: nobody in this flow sends one
        return None
