"""The arguments and results of a method, the same for every front end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Call:
    """The circumstances of one call. ``dedicated``: it came in by a dedicated endpoint's own name."""

    size: int = 0  # bytes of the request as it came over the wire
    dedicated: bool = False
    body: bytes | None = None  # the HTTP body, untouched, where there is one
    content_type: str = "application/json"


@dataclass(frozen=True)
class RawAnswer:
    """A container's answer that goes to the caller unchanged, or a document of the cloud's in plain JSON."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


# Takes the request message and the call; returns a protobuf or proto-plus message, or a RawAnswer.
Handler = Callable[[Any, Call], Any]


def bare(message: Any) -> Any:
    """The protobuf message inside a proto-plus one; other messages as they are."""
    return getattr(message, "_pb", message)
