"""The explicit seeds of a request draw what the handler would have drawn, and a retry draws it again."""

from __future__ import annotations

import json
from typing import Any

import numpy
import pytest

from handler.contract.request import Request, parse_body
from handler.contract.settings import Settings
from pipeline.client import InvalidRequest
from pipeline.client.request_body import encoded, request_body, sent_seeds

ABSENT = object()
RANDOM = 4711
SEEDS = [ABSENT, None, 0, 7, 7.0, "7", "0007", 2**53 + 1, 2**64 - 1, str(2**64 - 1), numpy.int64(9)]
SEEDS += [numpy.uint64(2**64 - 1), numpy.float32(3.0)]
WRONG = ["x", "", "-1", "\u0667", "7_0", " 7", -1, 7.5, 2**64, float(2**53), True, [7], "9" * 21]


def with_seed(fields: dict[str, Any], seed: Any) -> dict[str, Any]:
    return fields if seed is ABSENT else {**fields, "seed": seed}


def drawn(body: Any) -> list[int] | None:
    """The seeds that the handler draws a body with, RANDOM where it takes one itself; None if it refuses."""
    plain = json.loads(json.dumps(body, default=lambda number: number.item()))
    parsed = parse_body(plain, Settings(), lambda: RANDOM)
    if not isinstance(parsed, Request):
        return None
    return [job.seed for job in parsed.jobs]


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "as a batch line"])
@pytest.mark.parametrize("common", SEEDS)
def test_every_explicit_seed_is_the_one_the_handler_would_have_used(common: Any, wrapped: bool) -> None:
    instances = [with_seed({"prompt": "x"}, seed) for seed in SEEDS]
    given = [{"data": instance} for instance in instances] if wrapped else instances
    parameters = with_seed({}, common)
    original = drawn({"instances": given, "parameters": parameters})
    body = request_body(given, parameters)
    explicit = drawn(body)
    assert original is not None
    assert explicit is not None
    assert RANDOM not in explicit
    for before, after in zip(original, explicit, strict=True):
        assert before in (RANDOM, after)
    assert sent_seeds(body) == explicit == drawn(json.loads(encoded(body)))


def test_bare_prompts_and_batch_lines_of_text_get_one_too() -> None:
    body = request_body(["a", {"data": "b"}], {"seed": None})
    assert drawn(body) == sent_seeds(body)
    assert [one["prompt"] for one in body["instances"]] == ["a", "b"]


@pytest.mark.parametrize("seed", WRONG)
def test_a_wrong_seed_is_sent_for_the_server_to_name_once(seed: Any) -> None:
    for body in (request_body(["a"], {"seed": seed}), request_body([{"prompt": "a", "seed": seed}])):
        refused = parse_body(json.loads(encoded(body)), Settings(), lambda: RANDOM)
        assert not isinstance(refused, Request)
        assert len(refused.problems) == 1
        assert sent_seeds(body) == [None]


@pytest.mark.parametrize("count", [1, 2, 3.0, 8])
@pytest.mark.parametrize("seed", [7, "18446744073709551614", 2**64 - 1])
def test_further_pictures_have_the_handlers_seeds(count: Any, seed: Any) -> None:
    for body in (
        request_body([{"prompt": "a", "num_images_per_prompt": count, "seed": seed}, "b"]),
        request_body(["a"], {"num_images_per_prompt": count, "seed": seed}),
    ):
        assert drawn(body) == sent_seeds(body)
    assert len(set(sent_seeds(body))) == count


@pytest.mark.parametrize("count", [0, -1, 2.5, True, None, "3", [2], 10**9, 10**30])
def test_a_wrong_number_of_pictures_is_sent_for_the_server_to_name(count: Any) -> None:
    body = request_body([{"prompt": "a", "num_images_per_prompt": count, "seed": 7}])
    assert drawn(body) is None
    assert sent_seeds(body) == [7]


def test_an_instance_that_asks_for_a_description_gets_no_seed() -> None:
    assert request_body([{"describe": True}])["instances"] == [{"describe": True}]


@pytest.mark.parametrize(
    ("instance", "named"),
    [
        ({"prompt": "x", "guidance_scale": float("nan")}, "guidance_scale"),
        ({"prompt": "x", "guidance_scale": numpy.float32("inf")}, "guidance_scale"),
        ({"prompt": "x\udcff"}, "prompt"),
        ({"prompt": b"x"}, "prompt"),
        ({"prompt": "x", "seed": 10**5000}, "seed"),
        ({"prompt": "x", "width": numpy.zeros(3)}, "width"),
        ({"prompt": "x", "1": 2, 1: 2}, "1"),
        (["prompt"], "list"),
        (None, "NoneType"),
    ],
)
def test_what_json_cannot_hold_is_named_before_anything_is_sent(instance: Any, named: str) -> None:
    with pytest.raises(InvalidRequest, match="instance 1") as caught:
        request_body(["fine", instance])
    assert named in str(caught.value)
    assert caught.value.problems[0].instance == 1


def test_deep_values_wrong_parameters_and_a_lone_prompt_are_named() -> None:
    deep: Any = {}
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        request_body([{"prompt": deep}])
    with pytest.raises(InvalidRequest, match="parameters must be an object"):
        request_body(["x"], ["seed"])  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="instances must be a list"):
        request_body("a red circle")
