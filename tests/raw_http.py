"""HTTP/1.1 by hand over one socket: requests sent before their turn, and the answers as they come back."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

SECONDS = 30.0


def request(
    body: Any,
    content_type: str | None = "application/json",
    headers: Mapping[str, str] | None = None,
    target: str = "POST /predictions/model",
) -> bytes:
    """A whole request; ``body`` is bytes, or a value to be written as JSON."""
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"{target} HTTP/1.1", "Host: localhost", f"Content-Length: {len(sent)}"]
    lines += [f"Content-Type: {content_type}"] if content_type is not None else []
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + sent


class RawClient:
    """One connection. ``answers`` are (status, headers, body); a ``with`` block closes it."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
        self._file = self._socket.makefile("rb")

    def send(self, *requests: bytes) -> None:
        """All of them in one write."""
        self._socket.sendall(b"".join(requests))

    def head(self) -> tuple[int, dict[str, str]] | None:
        """The status and headers of the next answer; None where the connection was closed."""
        status_line = self._file.readline()
        if not status_line:
            return None
        headers = {}
        while line := self._file.readline().strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        return int(status_line.split()[1]), headers

    def body(self, headers: Mapping[str, str]) -> bytes | None:
        """The body that belongs to these headers; None where it broke off."""
        if headers.get("transfer-encoding") != "chunked":
            length = int(headers.get("content-length", 0))
            text = self._file.read(length)
            return text if len(text) == length else None
        parts = []
        while True:
            size = self._file.readline().strip()
            if not size:
                return None
            parts.append(self._file.read(int(size, 16)))
            self._file.readline()
            if int(size, 16) == 0:
                return b"".join(parts)

    def answer(self) -> tuple[int, dict[str, str], bytes | None] | None:
        """The next answer; None where the connection was closed before it."""
        try:
            head = self.head()
            return None if head is None else (*head, self.body(head[1]))
        except ConnectionError:
            return None

    def answers(self, most: int) -> Iterable[tuple[int, dict[str, str], bytes | None]]:
        """So many answers, fewer where the server closes the connection; a TimeoutError where it hangs."""
        for _ in range(most):
            if (one := self.answer()) is None:
                return
            yield one

    def __enter__(self) -> RawClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._socket.close()
