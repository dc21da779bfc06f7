"""Bytes from one connection to another, with back-pressure; and a TLS front for a plain HTTP server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from pipeline.cloud.certificates import Certificate

BLOCK = 1 << 18
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def relay(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, upstream: tuple[str, int], first: bytes = b""
) -> None:
    """Connect to ``upstream``, send it ``first``, then pass bytes both ways until both sides have ended."""
    far_reader, far_writer = await asyncio.open_connection(*upstream, limit=BLOCK)
    try:
        far_writer.write(first)
        await asyncio.gather(_pass(reader, far_writer), _pass(far_reader, writer))
    finally:
        await _close(far_writer)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while block := await reader.read(BLOCK):
            writer.write(block)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
        else:
            writer.close()
    except OSError:
        # A reset on one side (an upload that is cut) has to be a reset on the other.
        writer.transport.abort()


def guarded(serve: Serve) -> Serve:
    """Serve one connection, and close it whatever happens: a client that goes away is no error here."""

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            await _close(writer)

    return connection


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def tls_front(certificate: Certificate, upstream: tuple[str, int], port: int = 0) -> asyncio.Server:
    """Listen on loopback for TLS and pass what is inside to a plain HTTP server."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await relay(reader, writer, upstream)

    context = certificate.server_context()
    return await asyncio.start_server(guarded(serve), "127.0.0.1", port, limit=BLOCK, ssl=context)


def port_of_server(server: asyncio.Server) -> int:
    return int(server.sockets[0].getsockname()[1])
