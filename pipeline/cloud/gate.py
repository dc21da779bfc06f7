"""Whether a request may be looked at: no browser sent it, and it names a host that this server answers to.

A page in a browser reaches loopback too. It cannot help sending ``Origin`` or ``Sec-Fetch-*``
(https://www.w3.org/TR/fetch-metadata/), which no client of Google's sends, so these close the door.
"""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.cloud.hosts import answers_to

_JSON_TYPES = ("application/json", "application/json+protobuf")


class Refused(Exception):
    """A request that is not answered. ``code`` is a google.rpc.Code name, ``reason`` an ErrorInfo reason."""

    def __init__(self, code: str, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason


def refuse_browsers(headers: Iterable[tuple[str, str]]) -> None:
    """Raises Refused when a header is there that only browsers send."""
    for name, _ in headers:
        lower = name.lower()
        if lower == "origin" or lower.startswith(("sec-fetch-", "access-control-request-")):
            raise Refused("PERMISSION_DENIED", f"The local cloud answers no browser ({name} was sent).")


def refuse_foreign_hosts(service: str, hosts: list[str]) -> None:
    """Raises Refused unless exactly one Host is named, and it is one that ``service`` answers to."""
    if len(hosts) != 1 or not hosts[0].strip():
        raise Refused("INVALID_ARGUMENT", "The request must have one Host header.")
    if not answers_to(service, hosts[0]):
        raise Refused("PERMISSION_DENIED", f"The local cloud does not answer as {hosts[0]!r}.")


def refuse_other_than_json(content_type: str | None) -> None:
    """Raises Refused when a body is not declared as JSON: a page may send any other kind unasked."""
    kind = (content_type or "").partition(";")[0].strip().lower()
    if kind not in _JSON_TYPES:
        text = f"Unsupported content with type: {kind or 'none'}. Send application/json."
        raise Refused("INVALID_ARGUMENT", text, "badContent")
