"""Every route hands its request in here. It is refused while loading or stopping, else drawn and answered."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from handler.contract.problem import Refusal, error_body
from handler.contract.settings import Settings
from handler.doors.http.answer import LOADING, Answer, DrawRequest, Parsed, Shape, refuse
from handler.doors.http.body_limits import JSON_TYPES, read_body, unreadable
from handler.doors.http.drawer import Drawer, OptionalDrawer
from handler.doors.http.hang_up import answer_unless_gone
from handler.doors.refusals import DRAINING

SMALL_BODY = 65_536
"""Bytes; a larger body holds pictures, and is read in a thread while others are served."""

CLIENT_GONE = 499
"""The status that is counted for a client that has hung up; nobody receives it."""


@dataclass(frozen=True)
class Call:
    """A request as a route's parser sees it: its body, its headers, and what draws."""

    body: bytes
    headers: Mapping[str, str]
    settings: Settings
    drawer: Drawer


Parse = Callable[[Call], Parsed]


class Desk:
    """The state that the routes of one application share. Its methods are called in the event loop."""

    def __init__(self, settings: Settings, model_name: str = "model") -> None:
        self.settings = settings
        self.model_name = model_name
        self.drawer: OptionalDrawer = None
        self.draining = False
        self.open_requests = 0
        self.answered: Counter[tuple[str, int]] = Counter()
        """Requests by door and status."""
        # Two: reading a picture takes up to 20 bytes a pixel.
        self._parsing = ThreadPoolExecutor(2, thread_name_prefix="marquee-parse")

    @property
    def ready(self) -> bool:
        """Whether a request would be taken."""
        return self.drawer is not None and not self.draining

    async def serve(
        self,
        http: Request,
        parse: Parse,
        shape: Shape = error_body,
        types: tuple[str, ...] = JSON_TYPES,
    ) -> Response:
        """Reads a request, draws it and answers; an error has the form that ``shape`` makes."""
        if (drawer := self.drawer) is None or self.draining:
            refusal = LOADING if drawer is None and not self.draining else DRAINING
            return response(refuse(refusal, shape))
        with self._open():
            try:
                parsed = await self._read(http, parse, drawer, types)
            except ClientDisconnect:
                return Response(status_code=CLIENT_GONE)
            if isinstance(parsed, Refusal):
                return response(refuse(parsed, shape))
            pending = drawer.answer(parsed.jobs, parsed.make_answer)
            answer = await answer_unless_gone(http.receive, pending)
        return Response(status_code=CLIENT_GONE) if answer is None else response(answer)

    def close(self) -> None:
        """Ends the threads of the desk and of its drawer."""
        self._parsing.shutdown()
        if self.drawer is not None:
            self.drawer.close()

    async def _read(
        self, http: Request, parse: Parse, drawer: Drawer, types: tuple[str, ...]
    ) -> DrawRequest | Refusal:
        if refusal := unreadable(http, types):
            return refusal
        body = await read_body(http, self.settings.limits.max_request_bytes)
        if isinstance(body, Refusal):
            return body
        call = Call(body, http.headers, self.settings, drawer)
        if len(body) <= SMALL_BODY:
            return parse(call)
        return await asyncio.get_running_loop().run_in_executor(self._parsing, partial(parse, call))

    @contextmanager
    def _open(self) -> Iterator[None]:
        self.open_requests += 1
        try:
            yield
        finally:
            self.open_requests -= 1


def response(answer: Answer) -> Response:
    """The framework's response of an answer."""
    return Response(answer.body, answer.status, dict(answer.headers), answer.media_type)
