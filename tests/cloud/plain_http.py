"""Requests as bytes over plain sockets: what a browser, a stranger's program or a broken one may send."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from typing import Any

from pipeline.cloud.state import port_of


@dataclass(frozen=True)
class Answer:
    """``status`` is 0 where the server closed the connection without an answer."""

    status: int
    head: str
    body: bytes

    def document(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


def send(address: str, content: bytes, half_close: bool = False) -> Answer:
    """Send bytes to ``http://127.0.0.1:PORT`` and read until the server closes."""
    with socket.create_connection(("127.0.0.1", port_of(address)), timeout=60) as connection:
        received = b""
        try:
            connection.sendall(content)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            while block := connection.recv(1 << 16):
                received += block
        except OSError:  # the server closed it before all was sent
            pass
    head, _, body = received.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    status = int(words[1]) if len(words) > 2 and words[1].isdigit() else 0
    return Answer(status, head.decode("latin-1"), body)


def request(method: str, path: str, body: bytes = b"", **headers: str | None) -> bytes:
    """An HTTP/1.1 request that asks to close; a header that is None is left out."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    named = {"Host": "127.0.0.1", "Connection": "close", **given}
    if body and "Content-Length" not in named:
        named["Content-Length"] = str(len(body))
    lines = [f"{name}: {value}" for name, value in named.items() if value is not None]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode("latin-1") + body
