"""The parts of the OpenAPI document that several routes share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from handler.contract.schema import request_schema
from handler.contract.settings import Settings

PROMPT = "a red circle on a blue background"
ERRORS = {
    400: "the request is wrong; the error names the field, its value and what is allowed",
    413: "the body or the answer is too large",
    415: "the body is of a kind that this route does not take",
    429: "too many requests wait; Retry-After says when to come again",
    503: "the server is loading or stopping",
}


def answers(ok: str, media_type: str = "application/json") -> dict[int | str, dict[str, Any]]:
    """The answers of a route that draws; ``ok`` describes the good one."""
    good: dict[int | str, dict[str, Any]] = {
        200: {"description": ok, "content": {media_type: {"schema": {}}}}
    }
    bad: dict[int | str, dict[str, Any]] = {
        status: {"description": why, "content": {"application/json": {"schema": {"type": "object"}}}}
        for status, why in ERRORS.items()
    }
    return {**good, **bad}


def json_body(schema: Mapping[str, Any], examples: Mapping[str, Any]) -> dict[str, Any]:
    """A request body of JSON; ``examples`` by their summary."""
    named = {
        f"example_{number}": {"summary": summary, "value": value}
        for number, (summary, value) in enumerate(examples.items(), 1)
    }
    content = {"application/json": {"schema": dict(schema), "examples": named}}
    return {"requestBody": {"required": True, "content": content}}


def instances_body(settings: Settings) -> dict[str, Any]:
    """The contract's own body, with examples that can be sent as they are."""
    schema = {name: value for name, value in request_schema(settings).items() if name != "$schema"}
    one = {"instances": [{"prompt": PROMPT, "seed": 1}]}
    return json_body(
        schema,
        {
            "One picture": one,
            "Two pictures with receipts": {
                "instances": ["a blue square", {"prompt": PROMPT, "seed": 7}],
                "parameters": {"response": "full", "output_format": "png"},
            },
            "What this archive is": {"instances": [{"describe": True}]},
        },
    )


def flat_body(settings: Settings, renamed: Mapping[str, str], required: str = "prompt") -> dict[str, Any]:
    """The schema of an instance whose fields stand in the body itself, some under other names."""
    variants = request_schema(settings)["properties"]["instances"]["items"]["anyOf"]
    known: dict[str, Any] = dict(variants[0]["properties"])
    for other, own in renamed.items():
        known[other] = known[own]
    return {"type": "object", "properties": known, "required": [required], "additionalProperties": False}
