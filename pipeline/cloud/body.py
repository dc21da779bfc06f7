"""A request's body by RFC 9112, strictly: two readings of one length are how requests are smuggled."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from pipeline.cloud.gate import Refused

BLOCK = 1 << 20
_LENGTH = re.compile(r"[0-9]{1,15}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,12})[ \t]*(?:;[^\r\n]*)?\r?\n")
_LONGEST_LINE = 4096  # bytes, of a chunk's size with its extensions, or of a trailer
_MOST_TRAILERS = 100


class ConnectionCut(Exception):
    """The connection is to be reset now, in the middle of a body, without an answer."""


class BrokenBody(Refused):
    """A body that does not say where it ends: no further request can be read from this connection."""

    def __init__(self, message: str) -> None:
        super().__init__("INVALID_ARGUMENT", message, "badRequest")


def body_length(lengths: list[str], encodings: list[str]) -> int | None:
    """Bytes of the body by all Content-Length and Transfer-Encoding headers; None means chunked.

    Raises BrokenBody where they contradict each other or cannot be read.
    """
    if encodings:
        if lengths or [text.strip().lower() for text in encodings] != ["chunked"]:
            raise BrokenBody("A body is either chunked or has a Content-Length.")
        return None
    values = {text.strip() for text in lengths}
    if not values:
        return 0
    if len(values) > 1 or not _LENGTH.fullmatch(text := values.pop()):
        raise BrokenBody("Invalid Content-Length.")
    return int(text)


class Body:
    """A request's body, to be read once, in blocks of at most 1 MiB. ``length`` None means chunked."""

    def __init__(self, stream: BinaryIO, length: int | None) -> None:
        self._stream = stream
        self._left = length or 0
        self._chunked = length is None
        self.length = length
        self.cut_after: int | None = None  # bytes; a fault

    def blocks(self) -> Iterator[bytes]:
        """Raises ConnectionCut when the sender goes away in the middle, or a fault says so."""
        while block := self._next(BLOCK if self.cut_after is None else min(BLOCK, self.cut_after)):
            yield block
            if self.cut_after is not None:
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

    def drain(self, most: int | None = None) -> bool:
        """Read the rest and forget it; gives up after ``most`` bytes. Returns whether the end was reached."""
        drained = 0
        for block in self.blocks():
            drained += len(block)
            if most is not None and drained > most:
                return False
        return True

    def _next(self, size: int) -> bytes:
        if self._chunked and not self._left and not self._next_chunk():
            return b""
        if not self._left:
            return b""
        block = self._stream.read(min(size, self._left))
        if not block:
            raise ConnectionCut
        self._left -= len(block)
        if self._chunked and not self._left and self._line() not in (b"\r\n", b"\n"):
            raise BrokenBody("A chunk is longer than it says.")
        return block

    def _next_chunk(self) -> bool:
        match = _CHUNK_SIZE.fullmatch(self._line())
        if match is None:
            raise BrokenBody("Invalid chunk size.")
        self._left = int(match[1], 16)
        if not self._left:
            self._chunked = False
            self._skip_trailers()
        return self._left > 0

    def _skip_trailers(self) -> None:
        for _ in range(_MOST_TRAILERS):
            if not self._line().strip():
                return
        raise BrokenBody("Too many trailers.")

    def _line(self) -> bytes:
        line = self._stream.readline(_LONGEST_LINE)
        if not line:
            raise ConnectionCut
        if not line.endswith(b"\n"):
            raise BrokenBody("A line of a chunked body is too long or cut short.")
        return line
