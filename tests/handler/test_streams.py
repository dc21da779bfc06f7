"""Streamed answers through the door: lines of events, then the answer; and a door that cannot stream."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from door_batches import make_context

from handler.doors.torchserve.continuous import ContinuousBatches
from handler.doors.torchserve.door import Door

Ask = Callable[..., list[tuple[int, Any]]]
BODY: dict[str, Any] = {
    "instances": [{"prompt": "a", "seed": 5, "num_inference_steps": 30, "previews": 2}],
    "stream": True,
}


@pytest.fixture
def iterating(second_door: Door) -> Door:
    second_door._batches = ContinuousBatches(second_door._book)
    return second_door


def call(door: Door, root: Path, row: dict[str, Any]) -> tuple[Any, int, str, str]:
    """The stopping criterion's verdict, the status, the content type and the text for one request."""
    context = make_context(root, 1)
    [text] = door.handle([row], context)
    return (
        context.stopping_criteria[0](text),
        context.get_response_status(0)[0],
        context.get_response_content_type(0),
        str(text),
    )


def test_a_stream_is_events_and_then_the_very_answer(iterating: Door, archive_root: Path, ask: Ask) -> None:
    verdict, status, content_type, text = call(iterating, archive_root, {"body": BODY})
    assert (verdict, status, content_type) == (False, 200, "application/x-ndjson")
    assert text.startswith("{")
    while verdict is False:
        assert text.endswith("{") or text == "", "another's chunk behind it must break the line"
        verdict, status, content_type, more = call(iterating, archive_root, {})
        text += more
    assert verdict is True
    lines = [json.loads(line) for line in text.splitlines()]
    names = [line["event"] for line in lines]
    assert names[:2] == ["queued", "started"]
    steps = [(line["step"], line["steps"]) for line in lines if line["event"] == "step"]
    assert steps == [(step, 31) for step in range(1, 32)], "PNDM takes one more than the 30 asked for"
    assert names[-2:] == ["done", "answer"]
    assert all((line["instance"], line["picture"]) == (0, 0) for line in lines[:-1])
    plain = {"instances": [{**BODY["instances"][0], "previews": 0}]}
    assert lines[-1]["predictions"] == ask(plain)[0][1]["predictions"]


def test_what_is_refused_in_a_stream_has_its_own_status(iterating: Door, archive_root: Path) -> None:
    verdict, status, content_type, text = call(
        iterating, archive_root, {"body": {"instances": [""], "stream": True}}
    )
    assert (verdict, status, content_type) == (None, 400, "application/json")
    assert json.loads(text)["error"]["code"] == "invalid_request"


def test_what_fails_after_the_headers_is_a_line_with_its_status(iterating: Door, archive_root: Path) -> None:
    verdict, _, _, text = call(iterating, archive_root, {"body": BODY})
    assert verdict is False
    with_error = make_context(archive_root, 1)
    iterating._book.abandon()
    [last] = iterating._refuse_batch([{}], with_error)
    line = json.loads((text + str(last)).splitlines()[-1])
    assert (line["event"], line["status"], line["error"]["code"]) == ("failed", 500, "internal")


def test_a_door_without_continuous_batching_says_which_one_can_stream(ask: Ask) -> None:
    ((status, answer),) = ask({"instances": ["a"], "stream": True})
    assert status == 400
    [problem] = answer["error"]["problems"]
    assert problem["field"] == "stream"
    assert "--container marquee" in problem["message"]


def test_describe_tells_whether_there_are_streams_and_how_many_previews(ask: Ask) -> None:
    ((_, answer),) = ask({"instances": [{"describe": True}]})
    [description] = answer["predictions"]
    assert description["stream"] is False
    assert description["limits"]["max_previews"] == 8
