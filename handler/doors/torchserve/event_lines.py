"""A streamed answer: newline-delimited JSON, the events of the request and then its answer.

TorchServe writes the chunks of a second request on a connection into the answer to the first
(docs/security.md). Therefore every chunk but the last ends with the opening brace of the next line: what is
written in between makes that line no JSON.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence

from handler.contract.events import Event, Position, Preview, event_body
from handler.contract.response import Reply, to_json

CONTENT_TYPE = "application/x-ndjson"

OPENING = "{"
"""How every answer and every line begins, because all are JSON objects."""

ROOM = 65_536
"""Bytes kept free for events in the chunk that holds the answer."""


class EventLines:
    """The events of one request that were not sent yet. Any thread may tell some; one takes them."""

    def __init__(self, positions: Sequence[Position]) -> None:
        self._positions = positions
        self._events: deque[tuple[int, Event]] = deque()

    def tell(self, job: int, event: Event) -> None:
        """An event of the request's job of that index."""
        self._events.append((job, event))

    def take(self, previews: bool = True) -> list[str]:
        """A JSON text for each event so far, in order; previews only where they are wanted still."""
        events = [self._events.popleft() for _ in range(len(self._events))]
        return [
            to_json(event_body(event, self._positions[job]))
            for job, event in events
            if previews or not isinstance(event, Preview)
        ]


def unfinished(lines: Sequence[str]) -> str:
    """The chunk of these lines; the opening brace of the first has been sent."""
    return "".join(line[len(OPENING) :] + "\n" + OPENING for line in lines)


def finished(lines: Sequence[str], answer: Reply) -> str:
    """The last chunk of a stream: these lines and that of the answer."""
    return unfinished(lines) + last_line(answer)[len(OPENING) :] + "\n"


def last_line(answer: Reply) -> str:
    """The answer as a line: {"event": "answer", "predictions": [...]}.

    Without pictures it is {"event": "failed", "status": 500, "error": {...}}.
    """
    if answer.status == 200:
        return OPENING + '"event":"answer",' + answer.text[len(OPENING) :]
    return to_json({"event": "failed", "status": answer.status, **json.loads(answer.text)})
