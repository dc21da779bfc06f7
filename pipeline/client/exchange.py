"""One HTTP request and its answer, with a limit on the total time and size."""

from __future__ import annotations

import socket
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx

from pipeline.client.errors import BadAnswer, PredictionError, ServerUnreachable

CONNECT_SECONDS = 10.0

# Answers are read whole, so that none is kept for another request; gzip is the one encoding we bound.
_HEADERS = {"Content-Type": "application/json", "Accept-Encoding": "gzip", "Connection": "close"}
# zlib's window sizes: 31 reads gzip's header, 15 zlib's, which HTTP calls deflate.
_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


@dataclass(frozen=True)
class Answer:
    """An answer of any status, its body decoded."""

    status: int
    content: bytes
    headers: httpx.Headers


def post(web: httpx.Client, url: str, content: bytes, seconds: float, most_bytes: int) -> Answer:
    """POST a JSON body; ``seconds`` bound connecting, sending and reading together.

    Follows no redirect: credentials go to the host that was asked and to no other. Raises ServerUnreachable
    (no answer, or not all of it in time) and BadAnswer (more than ``most_bytes``, decoded or not).
    """
    host = f"{httpx.URL(url).host}"
    timeout = httpx.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))
    with _cut_at(seconds) as cut, _named(host, seconds, cut):
        options = {"headers": _HEADERS, "timeout": timeout, "extensions": {"trace": cut.trace}}
        with web.stream("POST", url, content=content, follow_redirects=False, **options) as answer:  # type: ignore[arg-type]
            return Answer(answer.status_code, _read(answer, most_bytes), answer.headers)


class _Cut:
    """Ends a request's connection when its time is over; httpx bounds only each single read and write."""

    def __init__(self) -> None:
        self.is_over = False
        self._socket: Any = None

    def trace(self, event: str, info: dict[str, Any]) -> None:
        """Remember the socket of the request; httpx calls this at each event (its trace extension)."""
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            self._socket = info["return_value"].get_extra_info("socket")
            if self.is_over:
                self.end()

    def end(self) -> None:
        self.is_over = True
        if self._socket is not None:
            with suppress(OSError):  # it has been closed already
                # A TLS socket's own shutdown forgets its keys under the thread that reads.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


@contextmanager
def _cut_at(seconds: float) -> Iterator[_Cut]:
    cut = _Cut()
    timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), cut.end)
    timer.daemon = True
    timer.start()
    try:
        yield cut
    finally:
        timer.cancel()


@contextmanager
def _named(host: str, seconds: float, cut: _Cut) -> Iterator[None]:
    """httpx's exceptions as ours."""
    try:
        yield
    except PredictionError:
        raise
    except httpx.HTTPError as error:
        if cut.is_over or isinstance(error, httpx.TimeoutException):
            message = f"{host} gave no whole answer within {seconds:.1f} s"
            raise ServerUnreachable(message) from None
        if isinstance(error, httpx.ConnectError):
            refused = _is_refused(error)
            raise ServerUnreachable(f"{host} cannot be reached ({error})", refused=refused) from None
        raise ServerUnreachable(f"{host} broke off the connection ({error!r})") from None
    except (UnicodeError, httpx.InvalidURL) as error:  # a host that is no name in the DNS
        raise ServerUnreachable(f"{host[:80]!r} cannot be reached ({error})", refused=True) from None


def _is_refused(error: BaseException) -> bool:
    """Whether the name does not exist or no program listens at the port; False where the network failed."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (ConnectionRefusedError, socket.gaierror)):
            return True
        cause = cause.__cause__ or cause.__context__  # httpcore raises "from None"
    return False


def _read(answer: httpx.Response, most_bytes: int) -> bytes:
    encoding = answer.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "", *_WINDOW_BITS):
        raise BadAnswer(f"the answer is encoded as {encoding[:40]!r}, which was not asked for")
    bits = _WINDOW_BITS.get(encoding)
    unpacking = None if bits is None else zlib.decompressobj(bits)
    parts: list[bytes] = []
    arrived = size = 0
    for raw in answer.iter_raw(chunk_size=1 << 16):
        arrived += len(raw)
        part = raw if unpacking is None else _unpacked(unpacking, raw, most_bytes + 1 - size)
        size += len(part)
        if max(arrived, size) > most_bytes:
            raise BadAnswer(f"the answer is larger than {most_bytes:,} bytes; it was not read on")
        parts.append(part)
    if unpacking is not None and arrived and not unpacking.eof:
        raise BadAnswer("the answer's gzip ends too early")
    return b"".join(parts)


def _unpacked(unpacking: Any, raw: bytes, most: int) -> bytes:
    try:
        unpacked: bytes = unpacking.decompress(raw, most)
    except zlib.error as error:
        raise BadAnswer(f"the answer cannot be unpacked ({error})") from None
    return unpacked
