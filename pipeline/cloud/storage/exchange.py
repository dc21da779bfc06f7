"""A request as the three APIs see it, and their answer: no sockets beyond a stream to read the body from."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO
from urllib.parse import parse_qsl

from pipeline.cloud.body import Body
from pipeline.cloud.gate import refuse_other_than_json
from pipeline.cloud.http_server import Incoming
from pipeline.cloud.json_body import read_object
from pipeline.cloud.storage.draft import Checksums
from pipeline.cloud.storage.errors import invalid

MOST_JSON_BYTES = 8 << 20  # a policy or a list of 32 components is far smaller


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
    def of(cls, incoming: Incoming) -> Request:
        pairs = parse_qsl(incoming.query, keep_blank_values=True)
        multiple: dict[str, list[str]] = {}
        for key, value in pairs:
            multiple.setdefault(key, []).append(value)
        return cls(incoming.method, incoming.path, dict(pairs), incoming.headers, incoming.body, multiple)

    @property
    def base_url(self) -> str:
        """Where the client thinks this server is. Google's names are only ever reached over TLS."""
        host = self.headers.get("Host", "localhost")
        scheme = "https" if host.endswith(".googleapis.com") else "http"
        return f"{scheme}://{host}"

    def json(self) -> dict[str, Any]:
        """The body's object, which is declared as JSON; empty when there is no body."""
        content = self.body.read(MOST_JSON_BYTES)
        if content:
            refuse_other_than_json(self.headers.get("Content-Type"))
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
        return read_object(content)
    except ValueError as error:
        raise invalid(f"Parse Error: {error}") from None


def whole_number(text: str, name: str) -> int:
    """A number of at most nineteen digits; raises StorageError 400 that names the field."""
    if not re.fullmatch(r"[0-9]{1,19}", text):
        raise invalid(f"Invalid value for {name}: {text[:80]}")
    return int(text)
