"""HTTP requests into request messages and messages into JSON, by the rules of google.api.http."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs, unquote

from google.protobuf import json_format

from pipeline.cloud.json_body import read_object
from pipeline.cloud.vertex.calls import bare
from pipeline.cloud.vertex.failures import invalid
from pipeline.cloud.vertex.methods import Method, Route

# Parameters of every Google API; none of them is a field of a request.
_SYSTEM_PARAMETERS = {"alt", "key", "fields", "prettyPrint", "quotaUser", "access_token", "uploadType"}


def find_route(methods: Iterable[Method], verb: str, path: str) -> tuple[Method, Route, re.Match[str]] | None:
    """The method that a verb and a path (still percent-encoded) belong to, or None."""
    decoded = unquote(path)
    for method in methods:
        for route in method.routes:
            if route.verb == verb and (match := route.pattern.fullmatch(decoded)):
                return method, route, match
    return None


def read_request(method: Method, route: Route, match: re.Match[str], query: str, body: bytes) -> Any:
    """The request message of an HTTP request; raises ServiceFailure INVALID_ARGUMENT."""
    document = _read_json(body) if route.body else {}
    if route.body not in ("", "*"):
        document = {route.body: document}
    message = method.request()
    fields = bare(message).DESCRIPTOR.fields_by_camelcase_name
    for key, values in parse_qs(query, keep_blank_values=True).items():
        name = key.lstrip("$")
        if name.partition(";")[0] not in _SYSTEM_PARAMETERS:
            repeated = name in fields and fields[name].is_repeated
            _put(document, name.split("."), values if repeated else values[-1])
    for name, value in zip(route.fields, match.groups(), strict=True):
        _put(document, name.split("."), value)
    try:
        json_format.ParseDict(document, bare(message))
    except json_format.ParseError as error:
        raise invalid(f"Invalid JSON payload received. {error}") from error
    return message


def _read_json(body: bytes) -> dict[str, Any]:
    try:
        return read_object(body or b"{}")
    except ValueError as error:
        raise invalid(f"Invalid JSON payload received. {error}") from error


def _put(document: dict[str, Any], path: list[str], value: str | list[str]) -> None:
    for name in path[:-1]:
        document = document.setdefault(name, {})
    document[path[-1]] = value


def write_json(message: Any, enums_as_ints: bool) -> bytes:
    """A message as Google's REST interface writes it: camelCase names, empty fields left out."""
    text: str = json_format.MessageToJson(bare(message), use_integers_for_enums=enums_as_ints, indent=None)
    return text.encode()
