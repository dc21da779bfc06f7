"""Clients that send a request before the answer to the one before it: never another request's picture."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import time
from collections.abc import Sequence
from typing import Any

import numpy
import pytest
from calls import post
from PIL import Image
from raw_http import RawClient, request

from pipeline.serving.server import RunningServer

STEPS = (60, 4, 25, 2, 12)
COLOURS = ("red", "green", "blue", "yellow", "purple")


@pytest.fixture(scope="module", params=["server", "continuous_server"])
def port(request: pytest.FixtureRequest) -> int:
    running: RunningServer = request.getfixturevalue(request.param)
    return running.ports.inference


def body(number: int) -> dict[str, Any]:
    """Requests of different lengths and colours."""
    prompt = f"a {COLOURS[number]} circle on a black background"
    instance = {"prompt": prompt, "seed": number, "num_inference_steps": STEPS[number]}
    return {"instances": [instance], "parameters": {"output_format": "png"}}


@pytest.fixture(scope="module")
def own(port: int) -> list[Any]:
    """The picture of each request, drawn alone."""
    url = f"http://127.0.0.1:{port}/predictions/model"
    return [pixels(post(url, body(number)).content) for number in range(len(STEPS))]


def pixels(text: bytes | None) -> Any | None:
    """The picture in an answer's text; None where the text is no such answer."""
    try:
        (prediction,) = json.loads(text or b"")["predictions"]
    except ValueError:
        return None
    return numpy.asarray(Image.open(io.BytesIO(base64.b64decode(prediction))).convert("RGB"), numpy.float32)


def whose(picture: Any, own: Sequence[Any]) -> int:
    return min(range(len(own)), key=lambda number: float(numpy.abs(picture - own[number]).mean()))


def assert_own_or_none(
    answers: Sequence[tuple[int, dict[str, str], bytes | None]], sent: Sequence[int], own: Sequence[Any]
) -> None:
    for number, (status, _, text) in zip(sent, answers, strict=False):
        if status == 200 and (picture := pixels(text)) is not None:
            assert whose(picture, own) == number


@pytest.mark.parametrize("sent", [(0, 1), (0, 2, 1, 4, 3), (3, 0, 1)])
def test_requests_in_one_write(port: int, own: list[Any], sent: tuple[int, ...]) -> None:
    with RawClient(port) as client:
        client.send(*(request(body(number)) for number in sent))
        answers = list(client.answers(most=len(sent)))
    assert answers
    assert_own_or_none(answers, sent, own)


def test_a_request_while_the_answer_to_another_is_on_its_way(port: int, own: list[Any]) -> None:
    with RawClient(port) as client:
        client.send(request(body(0)))
        head = client.head()
        assert head is not None
        client.send(request(body(3)))
        first = client.body(head[1])
    assert_own_or_none([(*head, first)], [0], own)
    assert first is None or pixels(first) is None or whose(pixels(first), own) == 0


@pytest.mark.parametrize("port", ["server"], indirect=True)  # the front closes its connections
def test_requests_one_after_the_other_keep_their_connection(port: int, own: list[Any]) -> None:
    with RawClient(port) as client:
        for number in (0, 1, 2, 1):
            client.send(request(body(number)))
            answer = client.answer()
            assert answer is not None
            assert answer[0] == 200
            picture = pixels(answer[2])
            assert picture is not None
            assert whose(picture, own) == number


def test_a_proxy_that_sends_its_users_requests_over_one_connection(port: int, own: list[Any]) -> None:
    """It gives each answer to the user whose turn it is, and after one that is none it starts anew."""
    waiting = list(range(len(STEPS)))
    rounds = 0
    while waiting:
        # Every other time one by one, as a proxy does with a server that closes its connections.
        sent = waiting[: 1 if rounds % 2 else None]
        rounds += 1
        with RawClient(port) as client:
            with contextlib.suppress(ConnectionError):  # closed while there was more to send
                for number in sent:
                    client.send(request(body(number)))
                    time.sleep(0.02)
            for number in list(sent):
                answer = client.answer()
                picture = pixels(answer[2]) if answer is not None and answer[0] == 200 else None
                if picture is None:
                    break
                assert whose(picture, own) == number
                waiting.remove(number)
