"""Valid requests; an invalid one is refused as a whole, with a list of all its mistakes."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handler.contract.fields import readers
from handler.contract.limits import Limits
from handler.contract.problem import MAX_PROBLEMS, Refusal, error_body
from handler.contract.request import Describe, Request, parse_body, parse_row
from handler.contract.settings import Settings

SETTINGS = Settings()
NAN = float("nan")
EMPTY: list[object] = []


def parse(body: Any) -> Request | Refusal:
    return parse_body(body, SETTINGS, lambda: 77)


def parse_one(**fields: Any) -> Any:
    request = parse({"instances": [{"prompt": "a cat", **fields}]})
    assert isinstance(request, Request), request
    return request.jobs[0]


def problems_of(body: Any) -> list[dict[str, Any]]:
    refusal = parse(body)
    assert isinstance(refusal, Refusal), refusal
    assert refusal.status == 400
    error = json.loads(json.dumps(error_body(refusal), allow_nan=False))["error"]
    assert error["code"] == "invalid_request"
    assert error["message"]
    problems: list[dict[str, Any]] = error["problems"]
    return problems


def test_a_prompt_alone_gets_every_default() -> None:
    job = parse_one()
    defaults = vars(SETTINGS.defaults)
    assert {name: getattr(job, name) for name in defaults} == defaults
    assert (job.prompt, job.seed) == ("a cat", 77)


def test_instance_fields_override_parameters_which_override_defaults() -> None:
    request = parse(
        {
            "instances": [{"prompt": "a"}, {"prompt": "b", "num_inference_steps": 4, "seed": 9}],
            "parameters": {"num_inference_steps": 7, "seed": 5},
        }
    )
    assert isinstance(request, Request)
    assert [(job.num_inference_steps, job.seed) for job in request.jobs] == [(7, 5), (4, 9)]


@pytest.mark.parametrize(
    ("field", "given", "meant"),
    [
        ("num_inference_steps", 25.0, 25),  # protobuf's Value knows only doubles
        ("guidance_scale", 3, 3.0),
        ("guidance_scale", 0, 0.0),
        ("seed", 0, 0),
        ("seed", 2**64 - 1, 2**64 - 1),
        ("seed", "18446744073709551615", 2**64 - 1),
        ("seed", "007", 7),
        ("seed", 12.0, 12),
        ("seed", None, 77),
        ("width", 512.0, 512),
        ("negative_prompt", "", ""),
        ("quality", 100, 100),
        ("scheduler", "euler_a", "Euler ancestral"),
        ("scheduler", "EulerAncestralDiscreteScheduler", "Euler ancestral"),
        ("scheduler", "dpm++ 2m", "DPM++ 2M"),
        ("scheduler", "DPMSolverMultistepScheduler", "DPM++ 2M"),
        ("scheduler", "unipc", "UniPC"),
        ("output_format", "webp", "webp"),
        ("response", "full", "full"),
        ("seed", 2.0**53 - 1, 2**53 - 1),
        ("seed", 2**53, 2**53),
        ("deadline_seconds", 2, 2.0),
        ("deadline_seconds", 0.5, 0.5),
        ("deadline_seconds", None, None),
        ("prompt", "é ☃ 🦀\x00", "é ☃ 🦀\x00"),
    ],
)
def test_values_that_mean_something(field: str, given: Any, meant: Any) -> None:
    value = getattr(parse_one(**{field: given}), field)
    assert value == meant
    assert type(value) is type(meant)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[
            ("num_inference_steps", value)
            for value in (0, 101, -1, 2.5, True, "5", None, EMPTY, dict[str, object](), 10**400)
        ],
        *[
            ("guidance_scale", value)
            for value in (-0.1, 31, "7", None, False, float("nan"), float("inf"), 10**400)
        ],
        *[("seed", value) for value in (-1, 2**64, 1.5, True, "abc", "-1", "", "1" * 21, "\u0661", 2.0**53)],
        *[("deadline_seconds", value) for value in (0, -1, "5", True, EMPTY, NAN, float("inf"), 10**400)],
        *[("width", value) for value in (63, 65, 0, 24, 4096, "64", None, 64.5)],
        *[("prompt", value) for value in ("", "  \n", None, 5, ["a"], {"a": 1}, "x" * 1001, "\ud800")],
        *[("negative_prompt", value) for value in (None, 5, "x" * 1001)],
        *[("scheduler", value) for value in ("Eulr", "", None, 3, "FlowMatchEulerDiscreteScheduler")],
        *[("output_format", value) for value in ("jpg", "PNG", "gif", None, 1)],
        *[("quality", value) for value in (0, 101, 90.5, True, "90")],
        *[("response", value) for value in ("img", None, True)],
    ],
)
def test_values_that_are_refused(field: str, value: Any) -> None:
    (problem,) = problems_of({"instances": [{"prompt": "a cat", field: value}]})
    assert (problem["instance"], problem["field"]) == (0, field)
    assert problem["allowed"]
    assert problem["message"].startswith(field)


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        7,
        "not json",
        b"\xff\xfe\xfa",
        b"{",
        "[" * 100_000,
        b'{"instances": ' + b"9" * 5000 + b"}",
        "null",
        "[1]",
        {},
        {"instances": None},
        {"instances": "a cat"},
        {"instances": {"prompt": "a cat"}},
        {"instances": []},
        {"instances": [{"prompt": "a"}] * 17},
        {"prompt": "a cat"},
        {"instances": [5]},
        {"instances": [None]},
        {"instances": [["a"]]},
        {"instances": [{}]},
        {"instances": [{"data": {}}]},
        {"instances": [{"data": {"data": {"prompt": "a"}}}]},
        {"instances": ["a"], "parameters": [1]},
        {"instances": ["a"], "parameters": "x"},
        {"instances": ["a"], "parameters": {"describe": True}},
        {"instances": [{"describe": 1}]},
        {"instances": [{"describe": True, "prompt": "a"}]},
        {"instances": [{"prompt": "a", "width": 1024, "height": 1024}, {"prompt": "b"}], "extra": 1},
        {"instances": [{"prompt": "a", "scheduler": "LCM", "num_inference_steps": 51}]},
    ],
)
def test_bodies_that_are_refused(body: Any) -> None:
    assert problems_of(body)


def test_a_flat_body_is_told_to_wrap_its_fields() -> None:
    (problem,) = problems_of({"prompt": "a cat", "seed": 1})
    assert 'wrap it: {"instances": [{"prompt": ...}]}' in problem["message"]


def test_every_problem_is_named_at_once_with_its_place() -> None:
    body = {
        "instances": [{"prompt": "a", "widht": 64}, {"prompt": 5, "seed": -1}, {"prompt": "fine"}],
        "parameters": {"scheduler": "Eulr", "quality": 0},
        "instancs": [],
    }
    places = [(problem["instance"], problem["field"]) for problem in problems_of(body)]
    assert places == [
        (None, "instancs"),
        (None, "scheduler"),
        (None, "quality"),
        (0, "widht"),
        (1, "prompt"),
        (1, "seed"),
    ]


@pytest.mark.parametrize(
    ("instance", "guess"),
    [
        ({"prompt": "a", "widht": 64}, "width"),
        ({"prompt": "a", "guidance": 4}, "guidance_scale"),
        ({"prompt": "a", "steps": 4}, "num_inference_steps"),
        ({"prompt": "a", "num_steps": 4}, "num_inference_steps"),
        ({"prompt": "a", "cfg": 4}, "guidance_scale"),
        ({"prompt": "a", "CFG_scale": 4}, "guidance_scale"),
        ({"prompt": "a", "sampler": "Euler"}, "scheduler"),
        ({"prompt": "a", "image_format": "png"}, "output_format"),
        ({"prompt": "a", "format": "png"}, "output_format"),
        ({"prompt": "a", "negative": "b"}, "negative_prompt"),
        ({"prompt": "a", "h": 64}, "height"),
        ({"prompt": "a", "w": 64}, "width"),
        ({"prompt": "a", "scheduler": "Eulr"}, "Euler"),
        ({"prompt": "a", "output_format": "jpg"}, "jpeg"),
        ({"prompt": "a", "zzzz": 1}, None),
    ],
)
def test_the_nearest_known_name_is_offered(instance: Any, guess: str | None) -> None:
    (problem,) = problems_of({"instances": [instance]})
    assert problem.get("did_you_mean") == guess


@pytest.mark.parametrize("name", ["deepcache", "cache_interval", "token_merging_ratio", "approximations"])
def test_approximations_are_refused(name: str) -> None:
    """None is offered, so none may be ignored in silence."""
    for body in (
        {"instances": [{"prompt": "a", name: 0.5}]},
        {"instances": ["a"], "parameters": {name: 0.5}},
    ):
        (problem,) = problems_of(body)
        assert problem["field"] == name


def test_pixels_count_together() -> None:
    small = Settings(limits=type(SETTINGS.limits)(max_width=1024, max_height=1024, max_pixels=64 * 64))
    refusal = parse_body({"instances": [{"prompt": "a", "width": 64, "height": 72}]}, small, lambda: 1)
    assert isinstance(refusal, Refusal)
    assert [problem.field for problem in refusal.problems] == ["width, height"]


@pytest.mark.parametrize(
    ("parameters", "instance", "named"),
    [
        ({"width": 512}, {"width": "x", "height": 512}, [(0, "width")]),
        ({"width": "x"}, {"height": 512}, [(None, "width")]),
        ({"width": "x"}, {"width": 512, "height": 512}, [(None, "width"), (0, "width, height")]),
        ({"scheduler": "LCM"}, {"scheduler": "Eulr", "num_inference_steps": 60}, [(0, "scheduler")]),
        ({"prompt": ""}, {"prompt": "a"}, [(None, "prompt")]),
    ],
)
def test_fields_are_checked_together_only_where_all_were_read(
    parameters: dict[str, Any], instance: dict[str, Any], named: list[tuple[int | None, str]]
) -> None:
    small = Settings(limits=type(SETTINGS.limits)(max_pixels=64 * 512))
    defaults = dataclasses.replace(SETTINGS.defaults, width=64)
    body = {"instances": [{"prompt": "a", **instance}], "parameters": parameters}
    refusal = parse_body(body, dataclasses.replace(small, defaults=defaults), lambda: 1)
    assert isinstance(refusal, Refusal)
    assert [(problem.instance, problem.field) for problem in refusal.problems] == named


def test_a_seed_that_may_have_lost_digits_says_how_to_send_it() -> None:
    (problem,) = problems_of({"instances": [{"prompt": "a", "seed": 2.0**53}]})
    assert "send it as a string" in problem["message"]


def test_a_hostile_body_gets_a_short_answer() -> None:
    prompt = "secret " * 100_000
    body = {"instances": [{"prompt": prompt, **{f"k{number}": prompt for number in range(5000)}}]}
    answer = json.dumps(error_body(_refused(body)))
    assert len(answer) < 100_000
    assert answer.count('"instance"') <= MAX_PROBLEMS


def _refused(body: Any) -> Refusal:
    refusal = parse(body)
    assert isinstance(refusal, Refusal)
    return refusal


@pytest.mark.parametrize("instance", ["a cat", {"data": "a cat"}, {"data": {"prompt": "a cat"}}])
def test_batch_predictions_wrappings(instance: Any) -> None:
    request = parse({"instances": [instance], "parameters": None})
    assert isinstance(request, Request)
    assert request.jobs[0].prompt == "a cat"


def test_describe_may_stand_beside_prompts() -> None:
    request = parse({"instances": [{"describe": True}, "a cat"]})
    assert isinstance(request, Request)
    assert isinstance(request.items[0], Describe)


BODY = {"instances": ["a cat"]}
TEXT = json.dumps(BODY)


@pytest.mark.parametrize(
    "row",
    [
        {"body": BODY},
        {"body": TEXT},
        {"body": TEXT.encode()},
        {"body": bytearray(TEXT.encode())},
        {"body": b"\xef\xbb\xbf" + TEXT.encode()},
        {"data": bytearray(TEXT.encode())},
        {"x": bytearray(b"1"), "body": BODY},  # /invocations hands over the query, too
        BODY,
        TEXT,
    ],
)
def test_every_way_torchserve_hands_over_a_body(row: Any) -> None:
    assert isinstance(parse_row(row, SETTINGS, lambda: 1), Request)


@pytest.mark.parametrize(
    "row", [{}, {"body": {}}, {"body": bytearray()}, {"body": None}, {"prompt": bytearray(b"a")}]
)
def test_a_lost_body_says_which_header_to_send(row: Any) -> None:
    refusal = parse_row(row, SETTINGS, lambda: 1)
    assert isinstance(refusal, Refusal)
    assert "Content-Type: application/json" in refusal.message


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=5)
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
NAMES = st.sampled_from([*readers(SETTINGS), "describe", "data", "widht"])
INSTANCES = st.dictionaries(NAMES, VALUES, max_size=6) | VALUES
BODIES = st.fixed_dictionaries(
    {}, optional={"instances": st.lists(INSTANCES, max_size=4) | VALUES, "parameters": INSTANCES, "x": VALUES}
)


@given(body=BODIES | VALUES)
@settings(max_examples=300, deadline=None)
def test_any_body_becomes_jobs_or_problems(body: Any) -> None:
    request = parse_row({"body": body}, SETTINGS, lambda: 1)
    if isinstance(request, Refusal):
        assert request.problems
        json.dumps(error_body(request), allow_nan=False)
    else:
        assert len(request.items) == len(
            body["instances"] if isinstance(body, dict) else json.loads(body)["instances"]
        )


@pytest.mark.parametrize(("output_format", "fits"), [("jpeg", False), ("png", True), ("webp", True)])
def test_texts_too_long_for_a_jpegs_metadata_are_refused(output_format: str, fits: bool) -> None:
    patient = Settings(limits=Limits(max_prompt_characters=5000))
    instance = {"prompt": "a" * 1800, "negative_prompt": "b" * 1701, "output_format": output_format}
    with_metadata = parse_body({"instances": [{**instance, "metadata": True}]}, patient, lambda: 0)
    assert isinstance(with_metadata, Request) == fits
    if isinstance(with_metadata, Refusal):
        assert [problem.field for problem in with_metadata.problems] == ["metadata"]
    assert isinstance(parse_body({"instances": [instance]}, patient, lambda: 0), Request)
