"""Bodies are read with a limit: what is too large or too slow is refused before it is in memory."""

from __future__ import annotations

import asyncio

from starlette.requests import Request

from handler.contract.problem import Refusal

SILENT_SECONDS = 30.0
"""A client that sends nothing of its body for so long is not waited for any longer."""

JSON_TYPES = ("application/json", "application/octet-stream", "text/json")
"""octet-stream is what AWS's client names where its caller names nothing."""


async def read_body(http: Request, most: int) -> bytes | Refusal:
    """The body, of at most ``most`` bytes. Raises ClientDisconnect where the client goes first."""
    length = http.headers.get("content-length", "")
    if length.isdigit() and int(length) > most:
        return too_large(most, f"{int(length)} bytes")
    body = bytearray()
    parts = http.stream().__aiter__()
    while True:
        try:
            body += await asyncio.wait_for(parts.__anext__(), SILENT_SECONDS)
        except StopAsyncIteration:
            return bytes(body)
        except asyncio.TimeoutError:
            message = f"nothing of the body came for {SILENT_SECONDS:g} seconds; send the request again"
            return Refusal(408, "body_too_slow", message)
        if len(body) > most:
            return too_large(most, f"more than {most} bytes")


def too_large(most: int, size: str) -> Refusal:
    """The 413 that names the limit."""
    message = f"the request has {size}; at most {most} can be taken: send fewer or smaller pictures"
    return Refusal(413, "request_too_large", message)


def unreadable(http: Request, taken: tuple[str, ...] = JSON_TYPES) -> Refusal | None:
    """Why a body of this kind is not read: a 415, or None."""
    coding = http.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("identity", ""):
        message = f"the body is sent as Content-Encoding: {coding[:80]}; send it as it is, without one"
        return Refusal(415, "unsupported_encoding", message)
    given = http.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given and given not in taken and not (given.endswith("+json") and taken is JSON_TYPES):
        message = f"the body is sent as Content-Type: {given[:80]}; this route takes {taken[0]}"
        return Refusal(415, "unsupported_media_type", message)
    return None
