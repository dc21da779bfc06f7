"""Fields that a client calls otherwise: read under our names, and named as the client does in errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from handler.contract.body import Repeating, read_json, why_unreadable
from handler.contract.limits import Limits
from handler.contract.problem import Problem, Refusal, invalid_request


def field_problem(field: str, value: Any, allowed: str, message: str) -> Refusal:
    """The 400 for one field."""
    return invalid_request([Problem(0, field, value, allowed, message)])


def read_object(body: bytes, limits: Limits) -> Mapping[str, Any] | Refusal:
    """The JSON object that a body holds, each of its keys given once."""
    try:
        value = read_json(body, limits)
    except (ValueError, RecursionError) as error:
        return _refuse_body(f"the body is not JSON: {why_unreadable(error)}")
    if isinstance(value, Refusal):
        return value
    if isinstance(value, Repeating):
        name, count = next(iter(value.repeated.items()))
        message = f"{name[:80]} is given {count} times in one object"
        return field_problem(name, None, "each key once in an object", message)
    if not isinstance(value, Mapping):
        return _refuse_body('the body must be a JSON object such as {"prompt": "..."}')
    return value


def with_our_names(given: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any] | Refusal:
    """The same fields under our names; ``names`` maps the client's to ours. Both at once are refused."""
    fields = {}
    for name, value in given.items():
        own = names.get(name, name)
        if own in fields:
            other = next(first for first in given if names.get(first, first) == own)
            message = f"{other} and {name} mean the same; give one of them"
            return field_problem(name, None, f"{other} or {name}", message)
        fields[own] = value
    return fields


def with_their_names(refusal: Refusal, names: Mapping[str, str]) -> Refusal:
    """The same refusal with the client's names of the fields; ``names`` as in ``with_our_names``."""
    theirs = {own: other for other, own in names.items()}
    words = re.compile(rf"\b({'|'.join(map(re.escape, theirs))})\b") if theirs else None

    def renamed(text: str) -> str:
        return words.sub(lambda found: theirs[found[0]], text) if words else text

    problems = tuple(
        replace(problem, field=theirs.get(problem.field, problem.field), message=renamed(problem.message))
        for problem in refusal.problems
    )
    return replace(refusal, message=renamed(refusal.message), problems=problems)


def _refuse_body(message: str) -> Refusal:
    return invalid_request([Problem(None, "body", None, "a JSON object", message)])
