"""Answers to a caller, and requests that are to be drawn. Knows no web framework."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable, Union

from handler.contract.job import Job
from handler.contract.problem import Refusal, error_body
from handler.contract.response import Reply, to_json
from handler.doors.answers import MakeReply

JSON = "application/json"

LOADING = Refusal(503, "loading", "the server is loading its model; /ping says when it is ready", (), 5)


@dataclass(frozen=True)
class Answer:
    """A status, a body and its media type, and further headers."""

    status: int
    body: bytes
    media_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DrawRequest:
    """A request that can be served: what is to be drawn, and how an answer is made of the outcomes."""

    jobs: Sequence[Job]
    make_answer: MakeReply[Answer]


Parsed = Union[DrawRequest, Refusal]

Shape = Callable[[Refusal], Mapping[str, Any]]
"""Makes the JSON object of an error as one kind of client expects it."""


def json_answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """A JSON answer; the text is ASCII."""
    return Answer(status, to_json(value).encode("ascii"), JSON, dict(headers or {}))


def refuse(refusal: Refusal, shape: Shape = error_body) -> Answer:
    """The answer to a request that gets no picture; with Retry-After where asking again may help."""
    headers = {}
    if refusal.retry_after_seconds is not None:
        headers["Retry-After"] = str(refusal.retry_after_seconds)
    if refusal.status in (401,):
        headers["WWW-Authenticate"] = "Bearer"
    return json_answer(shape(refusal), refusal.status, headers)


def of_reply(reply: Reply) -> Answer:
    """The contract's own reply, as it is."""
    headers = {} if reply.retry_after_seconds is None else {"Retry-After": str(reply.retry_after_seconds)}
    return Answer(reply.status, reply.text.encode("ascii"), JSON, headers)


def refusal_of(reply: Reply) -> Refusal:
    """The refusal that an error reply of the contract says, for a client that expects another shape."""
    error = json.loads(reply.text)["error"]
    return Refusal(
        reply.status, error["code"], error["message"], retry_after_seconds=reply.retry_after_seconds
    )
