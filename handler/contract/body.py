"""From a body's bytes to JSON values: its size and its number of values are checked before one is made."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from handler.contract.limits import Limits
from handler.contract.problem import Refusal

STRUCTURE = "{[,"
"""Every JSON value but the first of its object or list has one of these before it."""

MOST_DIGITS = 400
"""No float has more before its point, and int() takes quadratic time where Python sets it no limit."""


class Repeating(dict):  # type: ignore[type-arg]
    """A JSON object that names some keys more than once; ``repeated`` counts them."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        counts = Counter(name for name, _ in pairs)
        self.repeated = {name: count for name, count in counts.items() if count > 1}


def read_json(body: bytes | bytearray | str, limits: Limits) -> Any:
    """The body's JSON; a Refusal with 413 where it is too large.

    Objects with a key given twice are ``Repeating``. Raises ValueError or RecursionError where it is no JSON.
    """
    if len(body) > limits.max_request_bytes:
        return _too_large(len(body), limits)
    if _count(body) > _most(limits):
        return _too_many(limits)
    return json.loads(body, object_pairs_hook=_object, parse_int=_whole_number)


def _count(body: bytes | bytearray | str) -> int:
    """At least the number of values; what looks like structure within a text is counted, too."""
    if isinstance(body, str):
        return sum(body.count(character) for character in STRUCTURE)
    return sum(body.count(character.encode()) for character in STRUCTURE)


def _most(limits: Limits) -> int:
    """What the longest texts can hold of structure's bytes, in UTF-32 even, and room for every field."""
    return limits.max_instances * (2 * 4 * limits.max_prompt_characters + 100)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    plain = dict(pairs)
    return plain if len(plain) == len(pairs) else Repeating(pairs)


def _whole_number(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number has {len(digits)} digits")
    return int(digits)


def _too_large(size: int, limits: Limits) -> Refusal:
    most = limits.max_request_bytes
    message = f"the request has {size} bytes; at most {most} can be taken: send fewer or smaller pictures"
    return Refusal(413, "request_too_large", message)


def _too_many(limits: Limits) -> Refusal:
    message = (
        "the request holds more values than any request that can be answered;"
        f" instances must be a list of 1 to {limits.max_instances} objects"
    )
    return Refusal(413, "too_many_values", message)


def why_unreadable(error: Exception) -> str:
    """The reason in words; of a message its first part, which repeats nothing of the body."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8"
    return str(error).split(";")[0]
