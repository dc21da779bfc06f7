"""One request per connection: a small HTTP server before a TorchServe that batches continuously.

That TorchServe writes the answers of one connection into each other (docs/security.md). The front opens a
connection of its own to it for every request, and answers with ``Connection: close``. Nothing that a client
sends behind its first request is passed on; the client has to send it again (RFC 9112, 9.3.2).
"""

from __future__ import annotations

import asyncio
import logging
import resource
import threading
from collections.abc import Mapping
from typing import Any

import h11

from pipeline.serving.front_connection import READ_BYTES, ClientConnection, Refusal

MOST_CONNECTIONS = 1000


class Front:
    """Listens on ``host``:``port`` between ``start`` and ``close``, in a thread of its own.

    ``upstream``: the path of TorchServe's Unix socket. A body over ``max_request_bytes`` gets 413.
    """

    def __init__(self, host: str, port: int, upstream: str, max_request_bytes: int) -> None:
        self._address = (host, port)
        self._upstream, self._most_bytes = upstream, max_request_bytes
        # A request takes two file descriptors; a third of them is left to everything else.
        self._most = min(MOST_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 3)
        self._open = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="front", daemon=True)

    def start(self) -> None:
        """Listen; raises OSError where the address cannot be taken."""
        self._loop.set_exception_handler(_log_error)
        try:
            listening = asyncio.start_server(self._serve, *self._address, limit=READ_BYTES, backlog=1024)
            self._server = self._loop.run_until_complete(listening)
        except OSError:
            self._loop.close()
            raise
        self._thread.start()

    def close(self) -> None:
        """Stop listening and close every connection; may be called twice."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.run_until_complete(self._end())
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # the transports close in one more turn

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = ClientConnection(reader, writer)
        self._open += 1
        try:
            if self._open > self._most:
                raise Refusal(503, "overloaded", f"{self._most} connections are open already; try again")
            await client.exchange(self._upstream, self._most_bytes)
        except Refusal as refusal:
            await client.refuse(*refusal.args)
        except (OSError, h11.ProtocolError, asyncio.TimeoutError):
            client.reset()
        except asyncio.CancelledError:  # close
            return
        finally:
            self._open -= 1
            writer.transport.abort()


def _log_error(_: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
    """The kind of error and not its text, which could hold a client's words."""
    logging.getLogger(__name__).error("%s in the front", type(context.get("exception")).__name__)
