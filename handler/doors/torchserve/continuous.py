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
from handler.doors.torchserve.request_book import RequestBook

Reply = TypeVar("Reply")


@dataclass(frozen=True)
class Arrival(Generic[Reply]):
    """A new request that can be drawn: its jobs, and what makes an answer of their outcomes."""

    jobs: Sequence[Job]
    make_reply: MakeReply[Reply]


@dataclass(frozen=True)
class ReplyChunk(Generic[Reply]):
    """The part of a reply that is sent now: nothing yet, or the whole answer.

    ``stop`` is what TorchServe's stopping criterion must return: False keeps the request, True ends one that
    was kept before, None completes one at once, with an HTTP status of its own. ``opens``: the request is
    kept for the first time, so its headers leave now.
    """

    reply: Reply | None
    stop: bool | None
    opens: bool = False


Read = Callable[[int], Union[Arrival[Reply], Reply]]
"""From a row's index to the request in it, or to its answer where nothing is to be drawn."""


class ContinuousBatches(Generic[Reply]):
    """Tells new requests from those of earlier calls, and drops requests that no longer come."""

    def __init__(self, book: RequestBook[Reply]) -> None:
        self._book = book
        self._kept: set[str] = set()

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
                    self._book.admit(name, arrival.jobs, arrival.make_reply)
                else:
                    answers[name] = arrival
        answers.update(self._book.call(0.0 if answers else self._book.call_seconds))
        return [self._chunk(name, answers.get(name)) for name in names]

    def abandon(self, names: Sequence[str], reply: Reply) -> list[ReplyChunk[Reply]]:
        """Gives up everything that is being drawn and answers all with ``reply``."""
        self._book.abandon()
        chunks = [self._chunk(name, reply) for name in names]
        self._kept.clear()
        return chunks

    def _forget_gone(self, names: Sequence[str]) -> None:
        for name in set(self._book.open_requests) - set(names):
            self._book.cancel(name)
        self._kept &= set(names)

    def _chunk(self, name: str, reply: Reply | None) -> ReplyChunk[Reply]:
        known = name in self._kept
        if reply is None:
            self._kept.add(name)
            return ReplyChunk(None, False, opens=not known)
        self._kept.discard(name)
        return ReplyChunk(reply, True if known else None)


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
