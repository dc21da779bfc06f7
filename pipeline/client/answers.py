"""The one table from an HTTP answer to an exception."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from pipeline.client.documents import read_json
from pipeline.client.errors import (
    BadAnswer,
    InvalidRequest,
    PayloadTooLarge,
    PredictionError,
    Problem,
    ServerBusy,
    ServerFailed,
)
from pipeline.client.exchange import Answer
from pipeline.plain_text import one_line

MOST_PROBLEMS = 100


def document_of(answer: Answer) -> Any:
    """The JSON of an answer with status 200; raises the PredictionError that any other answer stands for."""
    if answer.status != 200:
        raise error_of(answer)
    try:
        document = read_json(answer.content)
    except ValueError as error:
        begins = one_line(answer.content[:80].decode("utf-8", "replace"))
        raise BadAnswer(f"the answer is no JSON: {error}; it begins {begins!r}", status=200) from None
    error_inside = document.get("error") if isinstance(document, dict) else None
    if isinstance(error_inside, dict):
        raise _error(_failing_status(error_inside.get("status")), error_inside, "", answer.headers)
    return document


def error_of(answer: Answer) -> PredictionError:
    """The exception for a status that is not 200; knows marquee's own error shape and TorchServe's."""
    text = answer.content[:4000].decode("utf-8", "replace")
    if 300 <= answer.status < 400:
        where = one_line(answer.headers.get("location", "nowhere"), 200)
        cure = "ask the server that pictures come from; a redirect is not followed"
        return ServerFailed(f"the server redirects ({answer.status}) to {where}", cure, answer.status)
    return _error(answer.status, _told(answer.content), text, answer.headers)


def _failing_status(told: Any) -> int:
    """The status of a failure that came under 200, which happened after the headers had left."""
    return told if type(told) is int and 400 <= told < 600 else 500


def _error(status: int, told: Mapping[str, Any], text: str, headers: Mapping[str, str]) -> PredictionError:
    message = one_line(str(told.get("message") or text[:300] or f"status {status}, without a message"))
    if status == 400:
        problems = told.get("problems")
        listed = problems[:MOST_PROBLEMS] if isinstance(problems, list) else []
        return InvalidRequest(message, tuple(map(_problem, listed)))
    if status == 413:
        cure = "ask for fewer or smaller pictures in one request, or for jpeg or webp"
        return PayloadTooLarge(message, cure, status)
    if status in (429, 503):
        return ServerBusy(message, status, retry_after_seconds(headers.get("retry-after")))
    return ServerFailed(f"the server answered {status}: {message}", status=status)


def _told(content: bytes) -> dict[str, Any]:
    # marquee says {"error": {"message", "problems"}}, TorchServe {"code", "type", "message"}.
    try:
        body = read_json(content)
    except ValueError:
        return {}
    if not isinstance(body, dict):
        return {}
    error = body.get("error", body)
    return error if isinstance(error, dict) else {"message": error}


def _problem(told: Any) -> Problem:
    if not isinstance(told, dict):
        return Problem(None, None, one_line(str(told)))
    instance = told.get("instance")
    return Problem(
        instance=instance if type(instance) is int else None,
        field=_text(told.get("field")),
        message=one_line(str(told.get("message", told))),
        value=told.get("value"),
        allowed=_text(told.get("allowed")),
        did_you_mean=_text(told.get("did_you_mean")),
    )


def _text(value: Any) -> str | None:
    return None if value is None else one_line(str(value))


def retry_after_seconds(header: str | None) -> float | None:
    """How long a Retry-After asks to wait, 0 or more: seconds or an HTTP date (RFC 9110, 10.2.3).

    None where it says neither: nan, inf, a negative number, words.
    """
    if header is None:
        return None
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", header.strip()):
        seconds = float(header)
        return seconds if math.isfinite(seconds) else None
    try:
        moment = parsedate_to_datetime(header)
    except (ValueError, TypeError, OverflowError):  # no date, or one that no calendar has
        return None
    return max(0.0, moment.timestamp() - time.time()) if moment.tzinfo else None
