"""The mistakes of a request, and the JSON object that every error answer has."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

# A hostile body can hold any number of mistakes; the answer must stay far below the server's reply limit.
MAX_PROBLEMS = 100
MAX_ECHO_CHARACTERS = 80

_PICTURE = re.compile(r"\s*data:|[A-Za-z0-9+/_=\r\n-]*\Z", re.IGNORECASE)
"""How a picture in JSON begins: a data: URL, or a long text of base64's characters alone."""


class FieldError(ValueError):
    """A value that a field cannot take; ``allowed`` describes the allowed values."""

    def __init__(self, allowed: str, message: str, did_you_mean: str | None = None) -> None:
        super().__init__(message)
        self.allowed = allowed
        self.did_you_mean = did_you_mean


@dataclass(frozen=True)
class Problem:
    """One mistake: its place (``instance`` None: body or parameters), its value, the allowed values."""

    instance: int | None
    field: str
    value: Any
    allowed: str
    message: str
    did_you_mean: str | None = None


@dataclass(frozen=True)
class Refusal:
    """A request that gets no picture: an HTTP status, a stable code, a sentence, and its problems if any.

    ``retry_after_seconds`` says when to ask again, where that may help.
    """

    status: int
    code: str
    message: str
    problems: tuple[Problem, ...] = ()
    retry_after_seconds: int | None = None


def invalid_request(problems: Sequence[Problem]) -> Refusal:
    """The 400 that lists these mistakes; its message repeats the first."""
    first = problems[0].message
    message = first if len(problems) == 1 else f"{len(problems)} problems; the first: {first}"
    return Refusal(400, "invalid_request", message, tuple(problems[:MAX_PROBLEMS]))


def error_body(refusal: Refusal) -> dict[str, Any]:
    """The JSON object of an error answer; values are shortened, so that no prompt comes back whole."""
    problems = [_problem_body(problem) for problem in refusal.problems]
    return {"error": {"code": refusal.code, "message": refusal.message, "problems": problems}}


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like ``name``; None where no known name is like it."""
    by_lower_case = {key.lower(): key for key in known}
    matches = difflib.get_close_matches(name[:MAX_ECHO_CHARACTERS].lower(), by_lower_case, n=1)
    return by_lower_case[matches[0]] if matches else None


def brief(value: Any) -> Any:
    """A JSON-safe echo of a caller's value: scalars as they are, anything long or deep shortened.

    Of a text that may be a picture only its length comes back.
    """
    if isinstance(value, str) and len(value) > MAX_ECHO_CHARACTERS:
        if _PICTURE.match(value[:MAX_ECHO_CHARACTERS]):
            return hidden(value)
        return f"{value[:MAX_ECHO_CHARACTERS]}... ({len(value)} characters)"
    if isinstance(value, dict):
        return f"an object of {len(value)} fields"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 64:
        return f"a whole number of {value.bit_length()} bits"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    return f"a value of type {type(value).__name__}"


def hidden(value: Any) -> Any:
    """The echo of a value that is meant to be a picture: of a text its length alone."""
    return f"<base64, {len(value)} characters>" if isinstance(value, str) else brief(value)


def _problem_body(problem: Problem) -> dict[str, Any]:
    body = {
        "instance": problem.instance,
        "field": brief(problem.field),
        "value": brief(problem.value),
        "allowed": problem.allowed,
        "message": problem.message,
    }
    return body if problem.did_you_mean is None else {**body, "did_you_mean": problem.did_you_mean}
