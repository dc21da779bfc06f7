"""The client against a real HTTP server on loopback that answers from a script."""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from PIL import Image

from pipeline.client import (
    BadAnswer,
    Client,
    InvalidRequest,
    PayloadTooLarge,
    ServerBusy,
    ServerFailed,
    ServerUnreachable,
)
from pipeline.client.retries import Patience
from pipeline.errors import MarqueeError

PATIENT = Patience(deadline_seconds=30.0, attempts=3, first_wait_seconds=0.01)


@dataclass
class Script:
    """Answers in order, the last one for ever; None breaks the connection off. ``bodies`` is what came in."""

    answers: list[tuple[int, Any, dict[str, str]] | None]
    bodies: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""


@contextmanager
def scripted(*answers: tuple[int, Any, dict[str, str]] | None) -> Iterator[Script]:
    script = Script(list(answers))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            script.bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            answer = script.answers.pop(0) if len(script.answers) > 1 else script.answers[0]
            if answer is None:
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            status, body, headers = answer
            text = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            for name, value in {"content-length": str(len(text)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        script.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield script
        finally:
            server.shutdown()
            thread.join()


def encoded(colour: str = "red", size: tuple[int, int] = (16, 8)) -> str:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


def pictures(count: int = 1) -> tuple[int, Any, dict[str, str]]:
    return 200, {"predictions": [encoded()] * count}, {}


def test_a_prompt_becomes_a_checked_picture() -> None:
    with scripted(pictures()) as script, Client(script.url) as client:
        (prediction,) = client.predict(["a red circle"], {"num_inference_steps": 5})
    assert (prediction.format, prediction.width, prediction.height) == ("png", 16, 8)
    assert script.bodies[0]["parameters"] == {"num_inference_steps": 5}
    assert script.bodies[0]["instances"] == [{"prompt": "a red circle", "seed": prediction.seed}]


def test_the_seed_is_explicit_and_the_same_in_every_try() -> None:
    busy = (503, {"code": 503, "type": "ServiceUnavailableException", "message": "no worker"}, {})
    dead = (507, {"code": 507, "type": "InternalServerException", "message": "Worker died."}, {})
    with scripted(busy, dead, pictures(2)) as script, Client(script.url, patience=PATIENT) as client:
        first, second = client.predict(["one", {"prompt": "two", "seed": "7"}])
    assert len(script.bodies) == 3
    assert script.bodies[0] == script.bodies[1] == script.bodies[2]
    assert first.seed is not None
    assert second.seed == 7


def test_a_seed_in_the_parameters_is_explicit_in_every_instance() -> None:
    with scripted(pictures()) as script, Client(script.url) as client:
        (prediction,) = client.predict(["x"], {"seed": 3})
    assert script.bodies[0] == {"instances": [{"prompt": "x", "seed": 3}], "parameters": {"seed": 3}}
    assert prediction.seed == 3


def test_a_broken_connection_is_tried_again() -> None:
    with scripted(None, pictures()) as script, Client(script.url, patience=PATIENT) as client:
        assert len(client.predict(["x"])) == 1
    assert len(script.bodies) == 2


def test_a_wrong_request_is_sent_once_and_tells_every_problem() -> None:
    problems = [
        {"instance": 0, "field": "width", "value": 7, "allowed": "8", "message": "width 7 is no multiple"},
        {"instance": None, "field": "stepz", "message": "unknown field", "did_you_mean": "steps"},
    ]
    refusal = {"error": {"code": "invalid_request", "message": "2 problems", "problems": problems}}
    with scripted((400, refusal, {})) as script, Client(script.url, patience=PATIENT) as client:
        with pytest.raises(InvalidRequest, match="width 7 is no multiple") as caught:
            client.predict(["x"])
        assert len(script.bodies) == 1
    assert [problem.instance for problem in caught.value.problems] == [0, None]
    assert caught.value.problems[1].did_you_mean == "steps"


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (413, {"error": {"code": "response_too_large", "message": "9 MB"}}, PayloadTooLarge),
        (429, {"error": {"code": "overloaded", "message": "full"}}, ServerBusy),
        (503, {"error": {"code": "draining", "message": "the server is stopping"}}, ServerBusy),
        (500, {"code": 500, "message": "Worker died."}, ServerFailed),
        (404, {"code": 404, "message": "Model not found: model"}, ServerFailed),
        (502, "<html>bad gateway</html>", ServerFailed),
        (504, {"error": {"code": "took_too_long", "message": "ask for fewer steps"}}, ServerFailed),
        (200, "not JSON", BadAnswer),
        (200, {"predictions": []}, BadAnswer),
        (200, {"predictions": ["bm8gcGljdHVyZQ=="]}, BadAnswer),
        (200, {"predictions": ["%%%"]}, BadAnswer),
        (200, {"predictions": [{"receipt": {}}]}, BadAnswer),
        (200, ["predictions"], BadAnswer),
    ],
)
def test_every_other_answer_has_its_exception(status: int, body: Any, error: type[Exception]) -> None:
    with scripted((status, body, {})) as script, Client(script.url, patience=PATIENT) as client:
        with pytest.raises(error):
            client.predict(["x"])
        assert len(script.bodies) == (3 if status in (429, 500, 502, 503) else 1)


def test_the_server_says_how_long_to_wait() -> None:
    busy = (429, {"error": {"message": "full"}}, {"Retry-After": "60"})
    with scripted(busy) as script, Client(script.url, patience=PATIENT) as client:
        # 60 s do not fit into the deadline of 30, so there is no second try.
        with pytest.raises(ServerBusy) as caught:
            client.predict(["x"])
        assert len(script.bodies) == 1
    assert caught.value.retry_after == 60


def test_a_receipt_comes_with_its_picture() -> None:
    whole = {"image": encoded(size=(4, 4)), "receipt": {"seed": 5}}
    with scripted((200, {"predictions": [whole]}, {})) as script, Client(script.url) as client:
        (prediction,) = client.predict(["x"], {"response": "full"})
    assert prediction.receipt == {"seed": 5}
    assert prediction.width == 4


RED, BLUE = encoded("red"), encoded("blue")


@pytest.mark.parametrize(
    ("prediction", "receipts"),
    [([RED, BLUE], [{}, {}]), ({"images": [RED, BLUE], "receipts": [{"seed": 7}, {"seed": 8}]}, [7, 8])],
    ids=["image", "full"],
)
def test_several_pictures_of_an_instance_come_in_order(prediction: Any, receipts: list[Any]) -> None:
    answer = {"predictions": [prediction, encoded("green")], "warnings": [{"instance": 0, "message": "cut"}]}
    instances = [{"prompt": "x", "num_images_per_prompt": 2, "seed": 7}, "y"]
    with scripted((200, answer, {})) as script, Client(script.url) as client:
        first, second, third = client.predict(instances)
    assert [base64.b64encode(one.data).decode() for one in (first, second)] == [RED, BLUE]
    assert [first.seed, second.seed] == [7, 8]
    assert [one.receipt.get("seed", {}) for one in (first, second)] == receipts
    assert [one.warnings for one in (first, second, third)] == [("cut",), ("cut",), ()]


@pytest.mark.parametrize(
    ("prediction", "named"),
    [
        (RED, "no list of pictures"),
        ({"image": RED, "receipt": {}}, "no list of pictures"),
        ({"images": RED, "receipts": [{}, {}]}, "no list of pictures"),
        ({"images": [RED, BLUE]}, "no list of receipts"),
        ({"images": [RED, BLUE], "receipts": {}}, "no list of receipts"),
        ([], "2 pictures were asked for in one prediction, 0 came"),
        ([RED], "2 pictures were asked for in one prediction, 1 came"),
        ([RED] * 3, "2 pictures were asked for in one prediction, 3 came"),
        ({"images": [RED, BLUE], "receipts": [{}]}, "2 receipts were asked for in one prediction, 1 came"),
        ([RED, {"image": BLUE}], "pictures are none"),
        ({"images": [RED, None], "receipts": [{}, {}]}, "pictures are none"),
        ({"images": [RED, BLUE], "receipts": [{}, [1]]}, "receipts are none"),
        ([RED, "%%%"], "no base64"),
        ({"error": {"message": "lost"}}, "instead of a picture came: lost"),
    ],
)
def test_another_number_or_kind_of_pictures_is_refused_by_name(prediction: Any, named: str) -> None:
    asked = [{"prompt": "x", "num_images_per_prompt": 2}]
    answer, refused = {"predictions": [prediction]}, pytest.raises(BadAnswer, match=named)
    with scripted((200, answer, {})) as script, Client(script.url) as client, refused:
        client.predict(asked)


@pytest.mark.parametrize("prediction", [[RED], [RED, BLUE], {"images": [RED], "receipts": [{}]}])
def test_a_list_in_place_of_one_picture_is_refused(prediction: Any) -> None:
    answer, refused = {"predictions": [prediction]}, pytest.raises(BadAnswer, match="is no picture")
    with scripted((200, answer, {})) as script, Client(script.url) as client, refused:
        client.predict(["x"])


def test_nobody_there_is_one_line_with_a_cure() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with Client(url) as client, pytest.raises(ServerUnreachable, match="no server listens") as caught:
            client.predict(["x"])
    assert caught.value.cure == "start one: marquee serve"


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8080",
        "127.0.0.1:8080",
        "",
        "http://",
        "http://a b",
        "http://[::1",
        "http://h:x",
        "http://h:99999",
        "ftp://127.0.0.1",
    ],
)
def test_a_malformed_url_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(MarqueeError, match="is no server's address") as caught:
        Client(url)
    assert caught.value.cure == "write it like http://127.0.0.1:8080"


@pytest.mark.parametrize("variable", ["http_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_no_proxy_stands_before_loopback(monkeypatch: pytest.MonkeyPatch, variable: str, host: str) -> None:
    monkeypatch.setenv(variable, "http://127.0.0.1:1")  # where nobody listens
    with scripted(pictures()) as script, Client(script.url.replace("127.0.0.1", host)) as client:
        assert len(client.predict(["x"])) == 1


def test_a_proxy_is_used_for_any_other_host(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted(pictures()) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        with Client("http://pictures.example") as client:
            assert len(client.predict(["x"])) == 1
        assert len(proxy.bodies) == 1


def test_no_answer_in_time_ends_with_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        patience = Patience(deadline_seconds=0.5, attempts=2)
        with (
            Client(url, patience=patience) as client,
            pytest.raises(ServerUnreachable, match="no whole answer"),
        ):
            client.predict(["x"])


def test_describe_returns_the_servers_own_words() -> None:
    with scripted((200, {"predictions": [{"weights_digest": "abc"}]}, {})) as script:
        with Client(script.url) as client:
            assert client.describe()["weights_digest"] == "abc"
        assert script.bodies == [{"instances": [{"describe": True}]}]


def test_a_failure_after_the_headers_is_an_exception_of_its_own_status() -> None:
    late = {"error": {"code": "not_finite", "message": "no picture came out", "problems": [], "status": 500}}
    with scripted((200, late, {})) as script, Client(script.url, patience=Patience(30.0, 1)) as client:
        with pytest.raises(ServerFailed, match="no picture came out") as caught:
            client.predict(["a"])
        assert caught.value.status == 500
