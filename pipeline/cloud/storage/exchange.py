"""A request as the three APIs see it, and their answer: no sockets beyond a stream to read the body from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO
from urllib.parse import parse_qsl, unquote, urlsplit

from pipeline.cloud.storage.draft import BLOCK, Checksums
from pipeline.cloud.storage.errors import invalid


class ConnectionCut(Exception):
    """The connection is to be reset now, in the middle of a body, without an answer."""


class Body:
    """A request's body, to be read once, in blocks of at most 1 MiB. ``length`` None means chunked."""

    def __init__(self, stream: BinaryIO, length: int | None) -> None:
        self._stream = stream
        self._left = length or 0
        self._chunked = length is None
        self.cut_after: int | None = None  # bytes; a fault

    def blocks(self) -> Iterator[bytes]:
        """Raises ConnectionCut when the sender goes away in the middle, or a fault says so."""
        while block := self._next(BLOCK if self.cut_after is None else min(BLOCK, self.cut_after)):
            yield block
            if self.cut_after is not None:
                self.cut_after -= len(block)
                if self.cut_after <= 0:
                    raise ConnectionCut

    def read(self) -> bytes:
        return b"".join(self.blocks())

    def drain(self) -> None:
        for _ in self.blocks():
            pass

    def _next(self, size: int) -> bytes:
        if self._chunked and not self._left and not self._next_chunk():
            return b""
        if not self._left:
            return b""
        block = self._stream.read(min(size, self._left))
        if not block:
            raise ConnectionCut
        self._left -= len(block)
        if self._chunked and not self._left:
            self._stream.readline()
        return block

    def _next_chunk(self) -> bool:
        line = self._stream.readline()
        if not line:
            raise ConnectionCut
        self._left = int(line.partition(b";")[0], 16)
        if not self._left:
            self._chunked = False
            while self._stream.readline().strip():
                pass
        return self._left > 0


@dataclass(frozen=True)
class Request:
    """``path`` is still percent-encoded, because an object's name may hold an encoded slash."""

    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: Body
    multiple: dict[str, list[str]] = field(default_factory=dict)  # every value of each parameter

    @classmethod
    def parse(cls, method: str, target: str, headers: Mapping[str, str], body: Body) -> Request:
        parts = urlsplit(target)
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        multiple: dict[str, list[str]] = {}
        for key, value in pairs:
            multiple.setdefault(key, []).append(value)
        return cls(method, parts.path, dict(pairs), headers, body, multiple)

    @property
    def base_url(self) -> str:
        """Where the client thinks this server is. Google's names are only ever reached over TLS."""
        host = self.headers.get("Host", "localhost")
        scheme = "https" if host.endswith(".googleapis.com") else "http"
        return f"{scheme}://{host}"

    def json(self) -> dict[str, Any]:
        content = self.body.read()
        return parse_json(content) if content else {}

    def checksums(self) -> Checksums:
        """What the headers x-goog-hash and Content-MD5 say of the whole content."""
        said = dict(
            item.strip().partition("=")[::2]
            for item in self.headers.get("x-goog-hash", "").split(",")
            if item.strip()
        )
        return Checksums(said.get("crc32c"), said.get("md5") or self.headers.get("Content-MD5"))


@dataclass(frozen=True)
class Response:
    """``body`` is bytes, or an open file of which ``start`` and ``length`` select what is sent."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | BinaryIO = b""
    start: int = 0
    length: int = 0


def json_response(
    value: Mapping[str, Any], status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    content = json.dumps(value).encode()
    return Response(status, {"Content-Type": "application/json; charset=UTF-8", **(headers or {})}, content)


def parse_json(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError:
        raise invalid("Parse Error") from None
    if not isinstance(value, dict):
        raise invalid("Parse Error: an object is expected")
    return value


def segment(text: str) -> str:
    """One segment of a path, decoded."""
    return unquote(text)
