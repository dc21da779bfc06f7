"""Google's list conventions: the filter language (AIP-160, the part Vertex AI documents), order and pages."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from google.protobuf import json_format

from pipeline.cloud.vertex.calls import bare
from pipeline.cloud.vertex.failures import invalid

_TOKEN = re.compile(
    r"\s*(?:(?P<word>\(|\)|AND\b|OR\b|NOT\b|-(?=\w))|(?P<field>[\w.\-]+)\s*(?P<operator>!=|<=|>=|=|<|>|:)\s*"
    r'(?P<value>"[^"]*"|[^\s()"=<>!]+))'
)
_DEFAULT_PAGE = 100
Test = Callable[[dict[str, Any]], bool]
Item = TypeVar("Item")


def page(
    items: Sequence[Item], size: int, token: str, filter_text: str = "", order_by: str = ""
) -> tuple[list[Item], str]:
    """One page of the messages that pass the filter, and the next page's token (empty on the last)."""
    kept = list(items)
    if filter_text:
        passes = parse_filter(filter_text)
        kept = [item for item in kept if passes(as_document(item))]
    for clause in reversed([part.split() for part in order_by.split(",") if part.strip()]):
        kept.sort(key=lambda item: _text(_value(as_document(item), clause[0])), reverse="desc" in clause[1:])
    start = _read_token(token)
    end = start + (size or _DEFAULT_PAGE)
    return kept[start:end], _write_token(end) if end < len(kept) else ""


def as_document(message: Any) -> dict[str, Any]:
    """A message as nested dicts with the names that filters use."""
    document: dict[str, Any] = json_format.MessageToDict(bare(message), preserving_proto_field_name=True)
    return document


def parse_filter(text: str) -> Test:
    """A test of a document; raises INVALID_ARGUMENT for what is not understood, never ignores it."""
    tokens: list[re.Match[str]] = []
    position = 0
    while position < len(text.rstrip()):
        match = _TOKEN.match(text, position)
        if match is None:
            raise invalid(f"Invalid filter: {text!r} is not understood at position {position}.")
        tokens.append(match)
        position = match.end()
    test, rest = _any_of(tokens)
    if rest:
        raise invalid(f"Invalid filter: unexpected {rest[0].group().strip()!r} in {text!r}.")
    return test


Tokens = list[re.Match[str]]


def _any_of(tokens: Tokens) -> tuple[Test, Tokens]:
    first, tokens = _all_of(tokens)
    tests = [first]
    while tokens and tokens[0]["word"] == "OR":
        test, tokens = _all_of(tokens[1:])
        tests.append(test)
    return lambda document: any(test(document) for test in tests), tokens


def _all_of(tokens: Tokens) -> tuple[Test, Tokens]:
    first, tokens = _one_of(tokens)
    tests = [first]
    while tokens and tokens[0]["word"] not in ("OR", ")"):
        test, tokens = _one_of(tokens[1:] if tokens[0]["word"] == "AND" else tokens)
        tests.append(test)
    return lambda document: all(test(document) for test in tests), tokens


def _one_of(tokens: Tokens) -> tuple[Test, Tokens]:
    if not tokens:
        raise invalid("Invalid filter: it ends where a comparison is expected.")
    head, *rest = tokens
    if head["word"] in ("NOT", "-"):
        test, rest = _one_of(rest)
        return lambda document: not test(document), rest
    if head["word"] == "(":
        test, rest = _any_of(rest)
        if not rest or rest[0]["word"] != ")":
            raise invalid("Invalid filter: a bracket is not closed.")
        return test, rest[1:]
    if head["word"]:
        raise invalid(f"Invalid filter: unexpected {head['word']!r}.")
    return _comparison(head["field"], head["operator"], head["value"].strip('"')), rest


def _comparison(field: str, operator: str, wanted: str) -> Test:
    def test(document: dict[str, Any]) -> bool:
        value = _value(document, field)
        text = _text(value)
        if operator == ":":
            return value is not None and (wanted == "*" or wanted in value)
        if operator in ("=", "!="):
            return (text == wanted) == (operator == "=")
        return {"<": text < wanted, ">": text > wanted, "<=": text <= wanted, ">=": text >= wanted}[operator]

    return test


def _value(document: dict[str, Any], field: str) -> Any:
    if field in ("model", "endpoint"):  # documented filter keys for the last part of the name
        return str(document.get("name", "")).rpartition("/")[2].partition("@")[0]
    value: Any = document
    for name in field.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    # proto3's JSON leaves false out, and "done=false" must still find what is running.
    return False if value is None and field == "done" else value


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def _write_token(offset: int) -> str:
    return base64.urlsafe_b64encode(f"from:{offset}".encode()).decode()


def _read_token(token: str) -> int:
    if not token:
        return 0
    try:
        word, _, offset = base64.urlsafe_b64decode(token).decode().partition(":")
        if word != "from":
            raise ValueError(word)
        return int(offset)
    except ValueError as error:
        raise invalid("The page token is invalid.") from error
