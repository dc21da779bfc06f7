"""Runs the application: listens at once, loads the archive meanwhile, and stops when all is answered."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable

import uvicorn
from fastapi import FastAPI

from handler.doors.http.desk import Desk
from handler.doors.http.drawer import Drawer

KEEP_ALIVE_SECONDS = 75
"""How long an idle connection is kept; longer than the 60 s of common proxies, so that they close first."""

FAREWELL_SECONDS = 0.5
"""The last answers leave in this time."""

BACKLOG = 2048

logger = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """uvicorn, without its own signals: it would close its port before the last answers are given."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves the signals to ``run``."""
        yield


def listen(address: str, port: int) -> socket.socket:
    """The socket that is listened on; ``port`` 0 takes a free one. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


async def run(app: FastAPI, desk: Desk, listener: socket.socket, load: Callable[[], Drawer]) -> bool:
    """Serves until SIGTERM or SIGINT; False where the archive could not be loaded.

    After the first signal new requests get 503 and open ones finish; a second one ends them.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
    server = Server(config)
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()

    def stop() -> None:
        if desk.draining:
            server.force_exit = True
            server.should_exit = True
        desk.draining = True
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    loaded = await _load(desk, load, stopping)
    if loaded:
        await _wait_for_end(desk, stopping, serving)
    server.should_exit = True
    await serving
    return loaded


async def _load(desk: Desk, load: Callable[[], Drawer], stopping: asyncio.Event) -> bool:
    """Loads in a thread; a signal meanwhile ends the process without waiting for it."""
    pool = ThreadPoolExecutor(1, "marquee-open")
    loading = asyncio.get_running_loop().run_in_executor(pool, load)
    stopped = asyncio.ensure_future(stopping.wait())
    either: set[asyncio.Future[Any]] = {loading, stopped}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not loading.done():
        return True
    try:
        desk.drawer = loading.result()
    except Exception as error:
        logger.error("marquee cannot serve this archive: %s: %s", type(error).__name__, error)
        return False
    finally:
        pool.shutdown(wait=False)
    logger.info("marquee is ready")
    return True


async def _wait_for_end(desk: Desk, stopping: asyncio.Event, serving: asyncio.Future[None]) -> None:
    stopped = asyncio.ensure_future(stopping.wait())
    ended: set[asyncio.Future[Any]] = {stopped, serving}
    await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    while desk.open_requests and not serving.done():
        await asyncio.sleep(0.02)
    if not serving.done():
        await asyncio.sleep(FAREWELL_SECONDS)
