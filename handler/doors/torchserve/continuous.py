"""One iteration of TorchServe's continuous batching, in plain values.

TorchServe (0.11.1 and newer) calls the handler again and again with all requests not answered yet: a new one
with its body, an old one under the same id without it. A request that no longer comes has lost its client.
The first thing said to a request fixes its HTTP status: a refusal must be its first word, and a
failure after that travels in the body.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Callable, Generic, TypeVar, Union

from handler.contract.job import Job
from handler.doors.answers import MakeReply
from handler.doors.torchserve.event_lines import EventLines
from handler.doors.torchserve.request_book import RequestBook

Reply = TypeVar("Reply")


@dataclass(frozen=True)
class Arrival(Generic[Reply]):
    """A new request that can be drawn: its jobs, and what makes an answer of their outcomes.

    ``lines`` takes its events where the answer is a stream.
    """

    jobs: Sequence[Job]
    make_reply: MakeReply[Reply]
    lines: EventLines | None = None


@dataclass(frozen=True)
class ReplyChunk(Generic[Reply]):
    """The part of a reply that is sent now: nothing yet, or the whole answer.

    ``stop`` is what TorchServe's stopping criterion must return: False keeps the request, True ends one that
    was kept before, None completes one at once, with an HTTP status of its own. ``opens``: the request is
    kept for the first time, so its headers leave now. ``lines`` are the events since the last chunk of a
    stream; None for an answer that is no stream.
    """

    reply: Reply | None
    stop: bool | None
    opens: bool = False
    lines: Sequence[str] | None = None


Read = Callable[[int], Union[Arrival[Reply], Reply]]
"""From a row's index to the request in it, or to its answer where nothing is to be drawn."""


class ContinuousBatches(Generic[Reply]):
    """Tells new requests from those of earlier calls, and drops requests that no longer come."""

    def __init__(self, book: RequestBook[Reply]) -> None:
        self._book = book
        self._kept: set[str] = set()
        self._streams: dict[str, EventLines] = {}

    def iterate(self, names: Sequence[str], read: Read[Reply]) -> list[ReplyChunk[Reply]]:
        """One chunk per request, in order; takes at most ``RequestBook.call_seconds``.

        Where one request is answered at once the call does not wait; the others are drawn meanwhile.
        """
        self._forget_gone(names)
        answers: dict[str, Reply] = {}
        for index, name in enumerate(names):
            if name not in self._kept:
                arrival = read(index)
                if isinstance(arrival, Arrival):
                    self._admit(name, arrival)
                else:
                    answers[name] = arrival
        answers.update(self._book.call(0.0 if answers else self._book.call_seconds))
        return [self._chunk(name, answers.get(name)) for name in names]

    def abandon(self, names: Sequence[str], reply: Reply) -> list[ReplyChunk[Reply]]:
        """Gives up everything that is being drawn and answers all with ``reply``."""
        self._book.abandon()
        chunks = [self._chunk(name, reply) for name in names]
        self._kept.clear()
        self._streams.clear()
        return chunks

    def _forget_gone(self, names: Sequence[str]) -> None:
        for name in set(self._book.open_requests) - set(names):
            self._book.cancel(name)
        self._kept &= set(names)
        self._streams = {name: lines for name, lines in self._streams.items() if name in names}

    def _admit(self, name: str, arrival: Arrival[Reply]) -> None:
        lines = arrival.lines
        if lines is not None:
            self._streams[name] = lines
        self._book.admit(name, arrival.jobs, arrival.make_reply, lines.tell if lines else None)

    def _chunk(self, name: str, reply: Reply | None) -> ReplyChunk[Reply]:
        known, stream = name in self._kept, self._streams.get(name)
        # A preview has no worth beside the picture, and the answer needs the room.
        lines = None if stream is None else stream.take(previews=reply is None)
        if reply is None:
            self._kept.add(name)
            return ReplyChunk(None, False, not known, lines)
        self._kept.discard(name)
        self._streams.pop(name, None)
        return ReplyChunk(reply, True if known else None, lines=lines)


def sends_calls() -> bool:
    """Whether this TorchServe knows ``continuousBatching``; before 0.9 it sends plain batches all the same.

    Raises RuntimeError for 0.9 to 0.11.0, which know the switch and then answer nothing.
    """
    import ts

    version = tuple(int(part) for part in ts.__version__.split(".")[:3] if part.isdigit())
    if (0, 9) <= version < (0, 11, 1):
        raise RuntimeError(
            f"TorchServe {ts.__version__} answers nothing under continuousBatching; take it out of"
            " the archive's model-config.yaml"
        )
    return version >= (0, 9)
