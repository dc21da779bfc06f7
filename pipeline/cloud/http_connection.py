"""What the local cloud needs beyond plain uvicorn: an end to silence, resets, TLS beside plain HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import threading

import uvicorn
from starlette.types import Receive, Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

SILENCE = 120.0  # seconds without a byte, after which a connection is closed
HEAD_BYTES = 1 << 16  # of a request's head, of a chunk's size with its extensions, of the trailers
_TLS_HANDSHAKE = b"\x16"  # the first byte of every TLS connection, of no HTTP request
_TOO_MANY_FILES = 1.0  # seconds to wait before the next connection is accepted, as asyncio does


class Connection(H11Protocol):
    """One connection. A request finds its transport in ``scope["state"]["transport"]``, for ``reset``."""

    _heard = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}
        self._heard = self.loop.time()
        self._timer = self.loop.call_later(SILENCE, self._end_silence)

    def data_received(self, data: bytes) -> None:
        self._heard = self.loop.time()
        super().data_received(data)

    def resume_writing(self) -> None:
        self._heard = self.loop.time()
        super().resume_writing()

    def eof_received(self) -> bool:  # type: ignore[override]
        """A client that has sent all may close its half and wait for the answer; TLS cannot do that."""
        waits = self.cycle is not None and not self.cycle.more_body and not self.cycle.response_complete
        if waits:
            self.cycle.keep_alive = False
        return waits and self.scheme == "http"

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)

    def _end_silence(self) -> None:
        left = self._heard + SILENCE - self.loop.time()
        if left <= 0 and self._is_clients_turn():
            self.transport.abort()
        else:
            self._timer = self.loop.call_later(left if left > 0 else SILENCE, self._end_silence)

    def _is_clients_turn(self) -> bool:
        """Whether the client has to send something, or to take what it was sent."""
        if self.cycle is None or self.cycle.response_complete or self.flow.write_paused:
            return True
        return self.cycle.more_body and not self.flow.read_paused


async def reset(scope: Scope, receive: Receive) -> None:
    """End the connection as a broken network does: with a reset, not a goodbye."""
    transport = scope["state"]["transport"]
    linger = struct.pack("ii", 1, 0)  # on, for 0 seconds: what is not yet sent is dropped
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()
    while (await receive())["type"] != "http.disconnect":
        pass


class Server(uvicorn.Server):
    """uvicorn's server for a thread of its own. With ``tls`` its port takes TLS connections as well."""

    def __init__(self, config: uvicorn.Config, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(config)
        self.ready = threading.Event()
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()

    def stop(self) -> None:
        """Ask the server to stop; call it from another thread, after ``ready``."""
        self._loop.call_soon_threadsafe(self._stopping.set)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        await super().startup([] if self._tls else sockets)
        if self._tls:
            for listener in sockets or []:
                listener.setblocking(False)
                self._spawn(self._accept(listener, self._tls))
        self.ready.set()

    async def main_loop(self) -> None:
        """As uvicorn's, but it ends at once, and looks at the clock once a second and not ten times."""
        while not self._stopping.is_set():
            await self.on_tick(0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), 1.0)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for task in self._tasks:
            task.cancel()
        await super().shutdown(sockets)

    def _spawn(self, work: asyncio._CoroutineLike[None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket, tls: ssl.SSLContext) -> None:
        while True:
            try:
                connection, _ = await self._loop.sock_accept(listener)
            except OSError:
                await asyncio.sleep(_TOO_MANY_FILES)
            else:
                self._spawn(self._open(connection, tls))

    async def _open(self, connection: socket.socket, tls: ssl.SSLContext) -> None:
        """Look at the first byte, leave it where it is, and hand the connection to uvicorn."""
        try:
            first = await asyncio.wait_for(_first_byte(connection), SILENCE)
        except (OSError, TimeoutError, asyncio.CancelledError):
            connection.close()
            return
        with contextlib.suppress(
            OSError
        ):  # a client that breaks off its handshake; asyncio closes the socket
            context = tls if first == _TLS_HANDSHAKE else None
            await self._loop.connect_accepted_socket(self._protocol, connection, ssl=context)

    def _protocol(self) -> Connection:
        return Connection(self.config, self.server_state, self.lifespan.state)


async def _first_byte(connection: socket.socket) -> bytes:
    """The first byte that a client sends; nothing when it has closed the connection."""
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    connection.setblocking(False)
    loop.add_reader(connection, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(connection)
    return connection.recv(1, socket.MSG_PEEK)
