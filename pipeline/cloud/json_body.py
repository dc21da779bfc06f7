"""JSON as the local cloud takes it from strangers: one object, no key twice, not endlessly deep."""

from __future__ import annotations

import json
import math
from typing import Any


def read_object(content: bytes) -> dict[str, Any]:
    """The object in a JSON text; raises ValueError that says what is wrong."""
    try:
        value = json.loads(
            content, object_pairs_hook=_distinct, parse_constant=_refuse_constant, parse_float=_finite
        )
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("an object is expected")
    return value


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two values for one key, one reader takes the first and another the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} is there twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is too large a number")
    return number


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")
