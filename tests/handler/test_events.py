"""The vocabulary of events, its document, and the two fields that ask for it. Without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from handler.contract.event_schema import TYPES, event_schema
from handler.contract.events import (
    EVENTS,
    Done,
    Event,
    Failed,
    Position,
    Preview,
    Queued,
    Started,
    Step,
    event_body,
    positions,
)
from handler.contract.problem import Refusal
from handler.contract.request import Request, parse_body
from handler.contract.response import Reply, refuse
from handler.contract.settings import Settings
from handler.doors.torchserve.event_lines import OPENING, EventLines, finished, last_line, unfinished

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES: list[Event] = [
    Queued(1, 0.25, 3.0),
    Started(25, 0.25),
    Step(3, 25, 1.23456, 9.1),
    Preview(1, 2, 9, "jpeg", "/9j/"),
    Done(12.5),
    Failed(503, "out_of_memory", "The device had no memory left."),
]
SCHEMAS = {
    schema["properties"]["event"]["const"]: schema for schema in event_schema()["oneOf"][: len(EVENTS)]
}
JSON_TYPES: dict[str, Any] = {"integer": int, "number": (int, float), "string": str}


def parse(body: Any) -> Request | Refusal:
    return parse_body(body, Settings(), lambda: 1)


def test_the_document_is_current() -> None:
    kept = json.loads((DOCS / "events.schema.json").read_text())
    assert kept == event_schema(), "run python scripts/write_request_schema.py"


def test_the_table_names_every_event_and_every_field() -> None:
    said = (DOCS / "events.md").read_text()
    for kind in EVENTS:
        assert f"| `{kind.name}` |" in said
        assert all(f"`{name}`" in said for name in SCHEMAS[kind.name]["properties"])


def test_there_is_an_example_of_every_event() -> None:
    assert [type(event) for event in EXAMPLES] == list(EVENTS)


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: event.name)
def test_an_event_is_as_its_schema_says(event: Event) -> None:
    body = json.loads(json.dumps(event_body(event, Position(2, 1))))
    schema = SCHEMAS[event.name]
    assert list(body) == schema["required"] == list(schema["properties"])
    assert (body["event"], body["instance"], body["picture"]) == (event.name, 2, 1)
    for name, value in body.items():
        known = schema["properties"][name]
        assert value == known.get("const", value)
        assert isinstance(value, JSON_TYPES[known.get("type", "string")])
        if "minimum" in known:
            assert value >= known["minimum"]
    assert set(TYPES) == {"int", "float", "str"}


def test_seconds_have_three_digits() -> None:
    body = event_body(EXAMPLES[2], Position(0, 0))
    assert body == {
        "event": "step",
        "instance": 0,
        "picture": 0,
        "step": 3,
        "steps": 25,
        "seconds": 1.235,
        "seconds_left": 9.1,
    }


def test_positions_leave_out_what_draws_nothing() -> None:
    request = parse({"instances": ["a", {"describe": True}, "b"]})
    assert isinstance(request, Request)
    assert positions(request.items) == [Position(0, 0), Position(2, 0)]


@pytest.mark.parametrize(
    ("body", "stream"),
    [
        ({}, False),
        ({"stream": True}, True),
        ({"parameters": {"stream": True}}, True),
        ({"stream": False}, False),
    ],
)
def test_a_stream_is_asked_for_beside_the_instances_or_in_the_parameters(
    body: dict[str, Any], stream: bool
) -> None:
    request = parse({"instances": ["a"], **body})
    assert isinstance(request, Request)
    assert request.stream is stream


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"instances": [{"prompt": "a", "stream": True}]}, 'belongs beside "instances"'),
        ({"instances": ["a"], "stream": "yes"}, "true or false"),
        ({"instances": ["a"], "parameters": {"stream": 1}}, "true or false"),
        ({"instances": ["a"], "streem": True}, "did you mean stream?"),
        ({"instances": [{"prompt": "a", "previews": 9}]}, "from 0 to 8"),
        ({"instances": [{"prompt": "a", "previews": -1}]}, "from 0 to 8"),
        ({"instances": [{"prompt": "a", "previews": 1.5}]}, "whole number"),
    ],
)
def test_wrong_streams_and_previews_are_named(body: dict[str, Any], named: str) -> None:
    refused = parse(body)
    assert isinstance(refused, Refusal)
    assert refused.status == 400
    assert any(named in problem.message for problem in refused.problems)


def test_previews_go_into_the_job_and_are_none_by_default() -> None:
    request = parse({"instances": [{"prompt": "a", "previews": 2}, "b"]})
    assert isinstance(request, Request)
    assert [job.previews for job in request.jobs] == [2, 0]


def stream_of(*chunks: str) -> list[Any]:
    return [json.loads(line) for line in "".join(chunks).splitlines()]


def test_chunks_join_to_whole_lines_whenever_they_are_taken() -> None:
    lines = EventLines([Position(0, 0), Position(1, 0)])
    chunks = [OPENING + unfinished(lines.take())]
    for number, event in enumerate(EXAMPLES[:3]):
        lines.tell(number % 2, event)
        chunks += [unfinished(lines.take()), unfinished(lines.take())]
    chunks.append(finished(lines.take(), Reply(200, '{"predictions":["x"]}')))
    events = stream_of(*chunks)
    assert [(line["event"], line.get("instance")) for line in events] == [
        ("queued", 0),
        ("started", 1),
        ("step", 0),
        ("answer", None),
    ]
    assert events[-1] == {"event": "answer", "predictions": ["x"]}


def test_a_foreign_answer_within_a_stream_makes_a_line_that_is_no_json() -> None:
    """TorchServe writes a second request's chunks between ours (docs/security.md), wherever it likes."""
    for foreign in ("{", '{"predictions":["foreign"]}', OPENING + unfinished(['{"event":"queued"}'])):
        lines = EventLines([Position(0, 0)])
        ours = [OPENING]
        for event in EXAMPLES[:2]:
            lines.tell(0, event)
            ours.append(unfinished(lines.take()))
        ours.append(finished([], Reply(200, '{"predictions":["x"]}')))
        for place in range(1, len(ours)):
            mixed = "".join([*ours[:place], foreign, *ours[place:]])
            with pytest.raises(json.JSONDecodeError):
                stream_of(mixed)


def test_previews_make_room_for_the_answer() -> None:
    lines = EventLines([Position(0, 0)])
    for event in EXAMPLES:
        lines.tell(0, event)
    names = [json.loads(line)["event"] for line in lines.take(previews=False)]
    assert names == ["queued", "started", "step", "done", "failed"]


def test_a_failed_request_ends_its_stream_with_the_status() -> None:
    line = json.loads(last_line(refuse(Refusal(500, "internal", "the server failed"))))
    assert (line["event"], line["status"], line["error"]["code"]) == ("failed", 500, "internal")
