"""Runs before every route: gives the request its id, asks the guards, counts, and logs on request."""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from collections.abc import Awaitable, MutableMapping
from typing import Any, Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp

from handler.doors.http.answer import refuse
from handler.doors.http.desk import Desk, response
from handler.doors.http.errors import door_of, shape_of
from handler.doors.http.guards import Guards

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]

REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
"""An id that a client may choose: it goes into headers and logs as it is."""

logger = logging.getLogger("marquee.requests")


class Front:
    """Gives each request an id, refuses what the guards refuse, and counts what is answered."""

    def __init__(self, app: ASGIApp, desk: Desk, guards: Guards) -> None:
        self._app, self._desk, self._guards = app, desk, guards

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One connection of ASGI 3."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, path, started = Headers(scope=scope), str(scope["path"]), time.monotonic()
        request_id = _request_id(headers.get("x-request-id", ""))
        scope.setdefault("state", {})["request_id"] = request_id

        async def answered(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = request_id
                self._note(path, int(message["status"]), request_id, time.monotonic() - started)
            await send(message)

        address = (scope.get("client") or ("",))[0]
        refusal = self._guards.refuse(path, headers, address, started)
        app = self._app if refusal is None else response(refuse(refusal, shape_of(path)))
        await app(scope, receive, answered)

    def _note(self, path: str, status: int, request_id: str, seconds: float) -> None:
        door = door_of(path)
        self._desk.answered[door, status] += 1
        if logger.isEnabledFor(logging.INFO):
            line = {"request_id": request_id, "door": door, "status": status, "seconds": round(seconds, 3)}
            logger.info(json.dumps(line))


def _request_id(given: str) -> str:
    return given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
