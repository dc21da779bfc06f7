"""The request's JSON Schema: current in docs/, and of one mind with the readers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from handler.contract.fields import fields
from handler.contract.problem import FieldError
from handler.contract.schema import request_schema
from handler.contract.settings import Settings

FILE = Path(__file__).parents[2] / "docs" / "request.schema.json"
FIELDS = {field.name: field for field in fields(Settings())}
NUMBERS = [name for name, field in FIELDS.items() if field.schema().get("type") in ("integer", "number")]
WORDS = [name for name, field in FIELDS.items() if "enum" in field.schema()]


def takes(name: str, value: Any) -> bool:
    try:
        FIELDS[name].read(value)
    except FieldError:
        return False
    return True


def test_the_document_is_current() -> None:
    wanted = request_schema(Settings())
    assert json.loads(FILE.read_text()) == wanted, "run python scripts/write_request_schema.py"


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_has_a_description_and_an_example_that_is_taken(name: str) -> None:
    field = FIELDS[name]
    assert field.description
    assert field.examples
    assert all(takes(name, example) for example in field.examples)


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_is_taken_up_to_its_bounds_and_no_further(name: str) -> None:
    schema = FIELDS[name].schema()
    step = schema.get("multipleOf", 1)
    low, high = schema["minimum"], schema["maximum"]
    assert takes(name, low)
    assert takes(name, high)
    assert not takes(name, low - step)
    assert not takes(name, high + step)
    assert takes(name, low + step / 2) == (schema["type"] == "number")


@pytest.mark.parametrize("name", WORDS)
def test_the_words_of_the_schema_are_taken_and_no_other(name: str) -> None:
    assert all(takes(name, word) for word in FIELDS[name].schema()["enum"])
    assert not takes(name, "no such word")


@pytest.mark.parametrize("name", ["prompt", "negative_prompt"])
def test_a_text_has_the_schemas_length(name: str) -> None:
    longest = FIELDS[name].schema()["maxLength"]
    assert takes(name, "a" * longest)
    assert not takes(name, "a" * (longest + 1))
    assert takes(name, " ") == ("pattern" not in FIELDS[name].schema())
