"""Bodies as bytes: how large, how many values, which keys twice; found before values are made."""

from __future__ import annotations

import json
import os
import tracemalloc
from typing import Any

import pytest

from handler.contract.limits import Limits
from handler.contract.problem import Refusal
from handler.contract.request import Request, parse_row
from handler.contract.settings import Settings

SETTINGS = Settings()
SMALL = Settings(limits=Limits(max_request_bytes=5000))


def parse(body: Any, settings: Settings = SETTINGS) -> Request | Refusal:
    return parse_row({"body": body}, settings, lambda: 0)


def refused(body: Any, settings: Settings = SETTINGS) -> Refusal:
    answer = parse(body, settings)
    assert isinstance(answer, Refusal), answer
    return answer


def test_a_body_over_the_limit_is_refused_with_413_and_the_limit() -> None:
    body = json.dumps({"instances": [{"prompt": "a" * 5000}]}).encode()
    answer = refused(body, SMALL)
    assert (answer.status, answer.code) == (413, "request_too_large")
    assert str(len(body)) in answer.message
    assert "5000" in answer.message


def test_a_few_pictures_of_megabytes_fit() -> None:
    """The body is read, and the picture is refused by its own limit."""
    body = json.dumps({"instances": [{"prompt": "a", "image": "A" * 7_000_000}]}).encode()
    answer = refused(body)
    assert (answer.status, [problem.field for problem in answer.problems]) == (400, ["image"])
    assert "5250000 bytes" in answer.message


@pytest.mark.parametrize("unit", [b"{},", b"[],", b"0,", b'{"a":0},', b'"",'])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_many_small_values_are_counted_before_they_are_made(unit: bytes, encoding: str) -> None:
    count = 9_000_000 // len(unit) // (2 if encoding == "utf-16" else 1)
    body = bytearray((b'{"instances":[' + unit * count + b"{}]}").decode().encode(encoding))
    tracemalloc.start()
    answer = refused(body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (answer.status, answer.code) == (413, "too_many_values")
    assert "1 to 16" in answer.message
    assert peak < 1_000_000


def test_the_longest_prompts_of_commas_are_not_too_many_values() -> None:
    limits = SETTINGS.limits
    text = "{,[" * (limits.max_prompt_characters // 3)
    body = {"instances": [{"prompt": text, "negative_prompt": text}] * limits.max_instances}
    assert isinstance(parse(json.dumps(body).encode()), Request)


@pytest.mark.parametrize(
    ("body", "instance", "field"),
    [
        ('{"instances": ["a"], "instances": ["b"]}', None, "instances"),
        ('{"instances": ["a"], "parameters": {"seed": 1, "seed": 2}}', None, "seed"),
        ('{"instances": ["a", {"prompt": "a", "seed": 1, "prompt": "b"}]}', 1, "prompt"),
        ('{"instances": [{"data": {"prompt": "a", "prompt": "a"}}]}', 0, "prompt"),
        ('{"instances": [{"data": "a", "data": "b"}]}', 0, "data"),
        ('{"instances": [{"describe": true, "describe": true}]}', 0, "describe"),
        ('{"instances": [{"prompt": "a", "\\u0070rompt": "b"}]}', 0, "prompt"),
    ],
)
def test_a_key_given_twice_is_refused_by_name(body: str, instance: int | None, field: str) -> None:
    answer = refused(body.encode())
    assert answer.status == 400
    (problem,) = answer.problems
    assert (problem.instance, problem.field) == (instance, field)
    assert f"{field} is given 2 times" in problem.message


def test_a_key_given_twice_where_nothing_is_read_is_refused_too() -> None:
    answer = refused(b'{"instances": [{"prompt": {"a": 1, "a": 2}}]}')
    assert answer.problems[0].field == "prompt"


@pytest.mark.parametrize("number", ["9" * 5000, "-" + "9" * 100_000, "1" * 4000])
def test_a_number_of_thousands_of_digits_is_refused_at_once(number: str) -> None:
    answer = refused(('{"instances": [{"prompt": "a", "seed": ' + number + "}]}").encode())
    assert answer.status == 400
    assert len(answer.message) < 300


def test_torchserve_is_told_to_leave_bodies_to_the_handler() -> None:
    import handler.marquee_handler  # noqa: F401  (TorchServe's loader imports it before it reads a request)

    assert os.environ["TS_DECODE_INPUT_REQUEST"] == "false"
