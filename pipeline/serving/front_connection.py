"""One client's connection to the front: one request is read, passed on and answered."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Coroutine
from typing import Any

import h11

HEAD_BYTES = 65_536  # with one read more at most: h11 looks at the size when a head is not complete
READ_BYTES = 65_536
HEAD_SECONDS = 60.0
BODY_SECONDS = 300.0
WRITE_SECONDS = 60.0  # for one write, to a client that does not read
# After the answer a client's bytes are read and dropped for so long: closing at once would reset the
# connection, and the answer could be lost (RFC 9112, 9.6).
FAREWELL_SECONDS = 10.0
HOP_BY_HOP = {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"upgrade", b"expect"}
FRAMING = {b"content-length", b"transfer-encoding"}
Headers = list[tuple[bytes, bytes]]


class Refusal(Exception):
    """An answer of the front's own, as (status, code, message)."""


class ClientConnection:
    """One client's connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)

    async def exchange(self, upstream: str, most_bytes: int) -> None:
        """Read one request, pass it on, pass the answer back."""
        request = await self._in_time(_next(self._http, self._reader), HEAD_SECONDS)
        if not isinstance(request, h11.Request):
            return  # closed without a request
        if _announced(request) > most_bytes:
            raise _too_large(most_bytes)
        try:
            reader, writer = await asyncio.open_unix_connection(upstream)
        except OSError as error:
            raise Refusal(503, "unavailable", "the model server does not answer; try again later") from error
        http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES)
        try:
            await self._in_time(self._pass_request(request, http, writer, most_bytes), BODY_SECONDS)
            await self._unless_hung_up(self._pass_answer(http, reader))
        finally:
            writer.transport.abort()  # where the client has hung up, this frees its place in the engine
        await self._farewell()

    async def _in_time(self, reading: Coroutine[Any, Any, Any], seconds: float) -> Any:
        try:
            return await asyncio.wait_for(reading, seconds)
        except TimeoutError as error:
            raise Refusal(408, "request_timeout", f"no whole request came within {seconds:g} s") from error
        except h11.RemoteProtocolError as error:
            if self._reader.at_eof():
                raise
            raise Refusal(error.error_status_hint, "invalid_http", "this is no valid HTTP request") from error

    async def _pass_request(
        self, request: h11.Request, http: h11.Connection, writer: asyncio.StreamWriter, most_bytes: int
    ) -> None:
        head = h11.Request(method=request.method, target=request.target, headers=_forwarded(request))
        _write(writer, http.send(head))
        length = 0
        while True:
            if self._http.they_are_waiting_for_100_continue:
                await self._send(h11.InformationalResponse(status_code=100, headers=[]))
            event = await _next(self._http, self._reader)
            if not isinstance(event, h11.Data):
                break
            length += len(event.data)
            if length > most_bytes:
                raise _too_large(most_bytes)
            _write(writer, http.send(h11.Data(data=event.data)))
            await writer.drain()
        _write(writer, http.send(h11.EndOfMessage()))  # trailers stay here
        await writer.drain()

    async def _pass_answer(self, http: h11.Connection, reader: asyncio.StreamReader) -> None:
        try:
            while not isinstance(event := await _next(http, reader), h11.EndOfMessage):
                if isinstance(event, h11.Response):
                    headers = [*_without_hops(event.headers), (b"Connection", b"close")]
                    await self._send(
                        h11.Response(status_code=event.status_code, headers=headers, reason=event.reason)
                    )
                elif isinstance(event, h11.Data):
                    await self._send(h11.Data(data=event.data))
                elif not isinstance(event, h11.InformationalResponse):
                    raise h11.RemoteProtocolError("no answer")
        except (ConnectionError, h11.ProtocolError) as error:
            if self._http.our_state is not h11.SEND_RESPONSE:
                raise  # half of the answer has left
            raise Refusal(502, "no_answer", "the model server closed the connection") from error
        await self._send(h11.EndOfMessage())

    async def _unless_hung_up(self, answer: Coroutine[Any, Any, None]) -> None:
        """End ``answer`` when the client closes its side, as Netty does (no ALLOW_HALF_CLOSURE)."""
        tasks = [asyncio.ensure_future(answer), asyncio.ensure_future(self._drop_input())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _drop_input(self) -> None:
        while await self._reader.read(READ_BYTES):
            pass

    async def _send(self, event: Any) -> None:
        _write(self._writer, self._http.send(event))
        await asyncio.wait_for(self._writer.drain(), WRITE_SECONDS)

    async def refuse(self, status: int, code: str, message: str) -> None:
        """Answer by ourselves, in the shape of the handler's errors."""
        text = json.dumps({"error": {"code": code, "message": message}}).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(text)))]
        response = h11.Response(status_code=status, headers=[*headers, ("Connection", "close")])
        try:
            for event in (response, h11.Data(data=text), h11.EndOfMessage()):
                await self._send(event)
            await self._farewell()
        except (TimeoutError, OSError, h11.ProtocolError):
            self.reset()

    async def _farewell(self) -> None:
        self._writer.write_eof()
        try:
            await asyncio.wait_for(self._drop_input(), FAREWELL_SECONDS)
        except (TimeoutError, OSError):
            return

    def reset(self) -> None:
        """Close so that the client cannot take half an answer for a whole one."""
        connection = self._writer.get_extra_info("socket")
        if connection.fileno() >= 0:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def _next(http: h11.Connection, reader: asyncio.StreamReader) -> Any:
    while (event := http.next_event()) is h11.NEED_DATA:
        http.receive_data(await reader.read(READ_BYTES))
    return event


def _write(writer: asyncio.StreamWriter, data: bytes | None) -> None:
    if data:
        writer.write(data)


def _announced(request: h11.Request) -> int:
    return max((int(value) for name, value in request.headers if name == b"content-length"), default=0)


def _too_large(most_bytes: int) -> Refusal:
    return Refusal(413, "request_too_large", f"a request may have {most_bytes} bytes at most")


def _without_hops(headers: Any) -> Headers:
    kept = [(bytes(name), bytes(value)) for name, value in headers]
    named = {
        part.strip().lower() for name, value in kept if name == b"connection" for part in value.split(b",")
    }
    return [pair for pair in kept if pair[0] in FRAMING or pair[0] not in HOP_BY_HOP | named]


def _forwarded(request: h11.Request) -> Headers:
    headers = _without_hops(request.headers)
    if any(name == b"transfer-encoding" for name, _ in headers):  # two framings could be read in two ways
        headers = [pair for pair in headers if pair[0] != b"content-length"]
    if all(name != b"host" for name, _ in headers):  # HTTP/1.0
        headers.append((b"host", b"localhost"))
    return headers
