"""The JSON Schema of a request, made of the same table as its readers."""

from __future__ import annotations

from typing import Any

from handler.contract.fields import OF_THE_REQUEST, fields
from handler.contract.settings import Settings

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def request_schema(settings: Settings) -> dict[str, Any]:
    """The schema of ``{"instances": [...], "parameters": {...}}`` under these limits.

    It says what each field can hold. Rules over several fields (pixels, steps of a scheduler, a prompt in
    one of two places) are the parser's alone, and so is ``{"data": instance}``, as Vertex's batches wrap it.
    """
    known = {field.name: field.schema() for field in fields(settings)}
    of_request = {name: known[name] for name in OF_THE_REQUEST}
    of_instance = {name: schema for name, schema in known.items() if name not in OF_THE_REQUEST}
    instance = {"type": "object", "properties": of_instance, "additionalProperties": False}
    describe = {
        "type": "object",
        "properties": {"describe": {"const": True}},
        "required": ["describe"],
        "additionalProperties": False,
    }
    prompt = {**known["prompt"], "description": "The prompt alone."}
    return {
        "$schema": DIALECT,
        "title": "A request for pictures",
        "type": "object",
        "properties": {
            "instances": {
                "type": "array",
                "minItems": 1,
                "maxItems": settings.limits.max_instances,
                "items": {"anyOf": [instance, prompt, describe]},
            },
            "parameters": {
                **instance,
                "properties": known,
                "description": "Fields of every instance that does not say them.",
            },
            **of_request,
        },
        "required": ["instances"],
        "additionalProperties": False,
    }
