"""A request's body as a thread reads it. h11 finds where it ends (RFC 9112) before it comes here."""

from __future__ import annotations

from collections.abc import Iterator

from anyio import from_thread
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from pipeline.cloud.gate import Refused

BLOCK = 1 << 20


class ConnectionCut(Exception):
    """The connection is to be reset now, in the middle of a body, without an answer."""


class BrokenBody(Refused):
    """A body that does not say where it ends: no further request can be read from this connection."""

    def __init__(self, message: str) -> None:
        super().__init__("INVALID_ARGUMENT", message, "badRequest")


def refuse_two_lengths(headers: Headers) -> None:
    """Raises BrokenBody for a chunked body with a Content-Length: requests are smuggled that way.

    h11 refuses every other contradiction itself; here it would take the chunks and forget the length.
    """
    if "Transfer-Encoding" in headers and "Content-Length" in headers:
        raise BrokenBody("A body is either chunked or has a Content-Length.")


class Body:
    """A request's body, to be read once, from a thread that anyio started, in blocks of about 1 MiB."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._more = True
        self._sender_gone = False
        self.cut_after: int | None = None  # bytes; a fault

    def blocks(self) -> Iterator[bytes]:
        """Raises ClientDisconnect when the sender goes away, and ConnectionCut when a fault says so."""
        while self._more:
            block = from_thread.run(self._next, BLOCK if self.cut_after is None else self.cut_after)
            if self.cut_after is None:
                yield block
            else:
                yield block[: self.cut_after]
                self.cut_after -= len(block)
                if self.cut_after <= 0:
                    raise ConnectionCut

    def read(self, most: int) -> bytes:
        """The whole body; raises Refused, before more is held in memory, when it exceeds ``most`` bytes."""
        content = bytearray()
        for block in self.blocks():
            content += block
            if len(content) > most:
                raise Refused(
                    "INVALID_ARGUMENT", f"Request payload size exceeds the limit: {most} bytes.", "tooLarge"
                )
        return bytes(content)

    def drain(self, most: int) -> bool:
        """Read the rest and forget it; gives up after ``most`` bytes. Returns whether the end was reached."""
        drained = 0
        for block in self.blocks():
            drained += len(block)
            if drained > most:
                return False
        return True

    async def _next(self, least: int) -> bytes:
        """``least`` bytes or somewhat more, fewer at the end: one change of threads for many messages.

        Raises ClientDisconnect when nothing came before the sender went away.
        """
        block = bytearray()
        while self._more and not self._sender_gone and len(block) < least:
            message = await self._receive()
            self._sender_gone = message["type"] == "http.disconnect"
            if not self._sender_gone:
                block += message.get("body", b"")
                self._more = message.get("more_body", False)
        if self._sender_gone and not block:
            raise ClientDisconnect
        return bytes(block)
