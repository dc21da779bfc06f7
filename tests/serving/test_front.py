"""The front before continuous batching: one request per connection, and nobody else is harmed."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
from calls import post
from raw_http import RawClient, request
from test_pipelining import body, pixels, whose

from pipeline.serving.front import Front
from pipeline.serving.server import RunningServer

LONG, SHORT = 0, 1


@pytest.fixture(scope="module")
def port(continuous_server: RunningServer) -> int:
    return continuous_server.ports.inference


@pytest.fixture(scope="module")
def own(continuous_server: RunningServer) -> list[object]:
    return [pixels(post(continuous_server.predict_url, body(number)).content) for number in range(5)]


def assert_first_only(client: RawClient, own: list[object], number: int = LONG) -> None:
    """The first request's own picture, then a clean close."""
    answer = client.answer()
    assert answer is not None
    assert (answer[0], answer[1]["connection"]) == (200, "close")
    picture = pixels(answer[2])
    assert picture is not None
    assert whose(picture, own) == number
    assert client.answer() is None


@pytest.mark.parametrize("sent", [(0, 1), (1, 0), (2, 3, 4), (0, 1, 2, 3, 4)])
def test_only_the_first_of_many_in_one_write_is_answered(
    port: int, own: list[object], sent: tuple[int, ...]
) -> None:
    with RawClient(port) as client:
        client.send(*(request(body(number)) for number in sent))
        assert_first_only(client, own, sent[0])


def test_a_second_request_after_the_headers_of_the_first_changes_nothing(
    port: int, own: list[object]
) -> None:
    with RawClient(port) as client:
        client.send(request(body(LONG)))
        head = client.head()
        assert head is not None
        client.send(request(body(SHORT)))
        picture = pixels(client.body(head[1]))
        assert picture is not None
        assert whose(picture, own) == LONG
        assert client.answer() is None


def test_a_refused_request_first(port: int) -> None:
    with RawClient(port) as client:
        client.send(request({"instances": [{"prompt": ""}]}), request(body(SHORT)))
        answer = client.answer()
        assert answer is not None
        assert answer[0] == 400
        assert client.answer() is None


def test_http_1_0_gets_a_whole_answer(port: int, own: list[object]) -> None:
    text = request(body(SHORT)).replace(b"HTTP/1.1\r\nHost: localhost", b"HTTP/1.0", 1)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(text)
        head, _, answer = b"".join(iter(lambda: client.recv(65536), b"")).partition(b"\r\n\r\n")
    assert b" 200 " in head
    assert b"transfer-encoding" not in head.lower()
    assert whose(pixels(answer), own) == SHORT


def test_halves_and_bursts_harm_no_other_client(port: int, own: list[object]) -> None:
    """Ten bursts, each with half a request beside it; another client is served while they go on."""
    for _ in range(10):
        with RawClient(port) as burst, RawClient(port) as half:
            half.send(request(body(SHORT))[:-20])
            burst.send(*(request(body(number)) for number in (4, 3, 1)))
            answer = post(f"http://127.0.0.1:{port}/predictions/model", body(3))
            assert whose(pixels(answer.content), own) == 3
            assert_first_only(burst, own, 4)


def test_a_client_that_keeps_connections_is_served(port: int, own: list[object]) -> None:
    with httpx.Client(trust_env=False, timeout=60) as client:
        for number in (0, 1, 3):
            answer = client.post(f"http://127.0.0.1:{port}/predictions/model", json=body(number))
            assert whose(pixels(answer.content), own) == number
        assert client.get(f"http://127.0.0.1:{port}/ping").json()["status"] == "Healthy"


def test_a_client_that_waits_for_100_continue(port: int, own: list[object]) -> None:
    text = request(body(SHORT), headers={"Expect": "100-continue"})
    head, _, rest = text.partition(b"\r\n\r\n")
    with RawClient(port) as client:
        client.send(head + b"\r\n\r\n")
        assert client.head() == (100, {})
        client.send(rest)
        assert_first_only(client, own, SHORT)


def test_too_large_bodies(port: int) -> None:
    announced = {"Expect": "100-continue", "Content-Length": "99999999"}
    chunk = b"FFFFF\r\n" + b" " * 0xFFFFF + b"\r\n"
    lines = b"POST /predictions/model HTTP/1.1\r\nHost: x\r\n"
    for start in (
        lines + "".join(f"{name}: {value}\r\n" for name, value in announced.items()).encode() + b"\r\n",
        lines + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 17,
    ):
        with RawClient(port) as client:
            client.send(start)
            answer = client.answer()
            assert answer is not None
            assert answer[0] == 413
            assert b'"request_too_large"' in (answer[2] or b"")


@pytest.fixture
def alone(tmp_path: object) -> Iterator[int]:
    """A front without a TorchServe behind it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    front = Front("127.0.0.1", port, f"{tmp_path}/none.sock", 1000)
    front.start()
    try:
        yield port
    finally:
        front.close()
        front.close()
    assert not any(thread.name == "front" and not thread.is_alive() for thread in threading.enumerate())


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (request(b"{}"), 503, "unavailable"),
        (b"nonsense\r\n\r\n", 400, "invalid_http"),
        (b"GET /ping HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 200_000 + b"\r\n\r\n", 431, "invalid_http"),
    ],
)
def test_the_fronts_own_answers(alone: int, sent: bytes, status: int, code: str) -> None:
    with RawClient(alone) as client:
        client.send(sent)
        answer = client.answer()
        assert answer is not None
        assert answer[0] == status
        assert f'"code": "{code}"'.encode() in (answer[2] or b"")


def test_a_slow_head_ends(alone: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.serving.front_connection.HEAD_SECONDS", 0.2)
    with RawClient(alone) as client:
        client.send(b"GET /ping HT")
        time.sleep(0.05)
        answer = client.answer()
        assert answer is not None
        assert answer[0] == 408
