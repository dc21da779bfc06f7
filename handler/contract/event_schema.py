"""The JSON Schema of one event, made of the dataclasses in ``handler.contract.events``."""

from __future__ import annotations

import dataclasses
from typing import Any

from handler.contract.events import EVENTS, Position
from handler.contract.schema import DIALECT

TYPES = {"int": "integer", "float": "number", "str": "string"}

POSITION = {
    "instance": "Index of the instance in the request, from 0.",
    "picture": "Index of the picture in its instance, from 0.",
}


def event_schema() -> dict[str, Any]:
    """The schema of an event as ``event_body`` makes it, and of the line that ends a stream."""
    return {
        "$schema": DIALECT,
        "title": "An event of a request for pictures",
        "oneOf": [*(_schema(kind) for kind in EVENTS), *_last_lines()],
    }


def _schema(kind: Any) -> dict[str, Any]:
    position = {
        name: {"description": POSITION[name], "type": "integer", "minimum": 0} for name in Position._fields
    }
    own = {spec.name: {"type": TYPES[str(spec.type)], **spec.metadata} for spec in dataclasses.fields(kind)}
    return _object(kind.name, kind.__doc__.split("\n")[0], {**position, **own})


def _last_lines() -> list[dict[str, Any]]:
    """What ends a stream: the answer of a request, or the error of all of it."""
    predictions = {"description": "As in an answer that is no stream.", "type": "array"}
    answer = _object("answer", "The answer. The last line of a stream.", {"predictions": predictions})
    answer["properties"]["warnings"] = {"type": "array"}
    status = {"description": "The HTTP status of this failure.", "type": "integer", "minimum": 400}
    error = {"description": "As in an answer that is no stream.", "type": "object"}
    message = "The request has failed as a whole. The last line of a stream."
    return [answer, _object("failed", message, {"status": status, "error": error})]


def _object(event: str, description: str, properties: dict[str, Any]) -> dict[str, Any]:
    known = {"event": {"const": event}, **properties}
    return {
        "description": description,
        "type": "object",
        "properties": known,
        "required": list(known),
        "additionalProperties": False,
    }
