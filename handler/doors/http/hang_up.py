"""A request ends when its client hangs up: no further step is drawn for it.

Starlette cancels streamed answers by itself; a plain answer needs this watcher.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any, Callable

from handler.doors.answers import PendingReply
from handler.doors.http.answer import Answer

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
"""ASGI's receive, after the whole body has been read: the next message is the end of the connection."""


async def answer_unless_gone(receive: Receive, pending: PendingReply[Answer]) -> Answer | None:
    """The answer, or None where the client has gone before it was ready; its places are free then."""
    drawing = asyncio.wrap_future(pending.reply)
    watching = asyncio.ensure_future(_gone(receive))
    try:
        both: set[asyncio.Future[Any]] = {drawing, watching}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        return drawing.result() if drawing.done() else None
    finally:
        drawing.cancel()
        pending.cancel()
        watching.cancel()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
