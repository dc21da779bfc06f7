"""A token, a password and a request go to the server that was asked, and to no other."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import hostile_server
import httpx
import pytest

from pipeline.client import Client, PredictionError, ServerFailed
from pipeline.client.exchange import post
from pipeline.client.retries import Patience
from pipeline.client.vertex import token_auth
from pipeline.errors import MarqueeError


class Credentials:
    """As google-auth's: puts a token on a request."""

    def before_request(self, _: Any, method: str, url: str, headers: dict[str, str]) -> None:
        headers["authorization"] = "Bearer s3cret"


@pytest.mark.parametrize(
    "url",
    [
        "https://us-central1-aiplatform.googleapis.com/v1/x:rawPredict",
        "https://5.europe-west4-123.prediction.vertexai.goog/v1/x:rawPredict",
        "https://localhost:8443/v1/x",
    ],
)
def test_a_token_goes_to_google_and_to_this_machine(url: str) -> None:
    request = token_auth(Credentials())(httpx.Request("POST", url))
    assert request.headers["authorization"] == "Bearer s3cret"


@pytest.mark.parametrize(
    "url",
    [
        "http://us-central1-aiplatform.googleapis.com/v1/x",
        "https://evil.example/-aiplatform.googleapis.com/v1",
        "https://us-central1-aiplatform.googleapis.com@evil.example/v1",
        "https://aiplatform.googleapis.com.evil.example/v1",
        "https://evilgoogleapis.com/v1",
        "https://googleapis.com.evil/",
        "https://vertexai.goog.example/",
        "http://localhost:8443/v1",
        "https://10.0.0.1/v1",
    ],
)
def test_a_token_goes_nowhere_else(url: str) -> None:
    request = httpx.Request("POST", url)
    with pytest.raises(MarqueeError, match="the token is not sent there"):
        token_auth(Credentials())(request)
    assert "authorization" not in request.headers


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Same", "308 Same"])
def test_a_redirect_takes_no_request_and_no_token_elsewhere(status: str) -> None:
    reached: list[socket.socket] = []
    with hostile_server.serving(lambda connection, head: reached.append(connection)) as other:
        redirect = hostile_server.sent(hostile_server.answer(b"", status, location=f"{other}/take?it"))
        headers = {"authorization": "Bearer s3cret"}
        with (
            hostile_server.serving(redirect) as url,
            httpx.Client(headers=headers, follow_redirects=True) as web,
        ):
            assert post(web, url, b"{}", 30.0, 1000).status == int(status[:3])
        with hostile_server.serving(redirect) as url, Client(url) as client:
            with pytest.raises(ServerFailed, match="redirects") as caught:
                client.predict(["x"])
            assert caught.value.cure
    assert not reached


def test_a_password_in_the_url_is_sent_and_never_named() -> None:
    told = Patience(deadline_seconds=30.0, attempts=1)
    heads: list[bytes] = []

    def refuse(connection: socket.socket, head: bytes) -> None:
        heads.append(head)
        connection.sendall(hostile_server.answer(b"{}", "500 Oops"))

    with hostile_server.serving(refuse) as url:
        own = url.replace("http://", "http://me:s3cret@")
        with Client(own, patience=told) as client, pytest.raises(PredictionError):
            client.predict(["x"])
    assert b"Basic bWU6czNjcmV0" in heads[0]
    with Client(own, patience=told) as client, pytest.raises(PredictionError) as caught:
        client.predict(["x"])
    assert "s3cret" not in f"{caught.value} {caught.value.cure}"


@pytest.mark.parametrize("proxy", ["foo://127.0.0.1", "socks5://127.0.0.1:1", "http://127.0.0.1:x"])
def test_an_impossible_proxy_of_the_environment_is_named(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(MarqueeError, match="the environment's proxy") as caught:
        Client("http://pictures.example")
    assert "ALL_PROXY" in str(caught.value.cure)


def test_certificates_that_are_not_there_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(MarqueeError, match="certificates"):
        Client("https://pictures.example")


def test_a_models_name_stays_one_part_of_the_path() -> None:
    with Client("http://127.0.0.1:1", model_name="../../models?x#y") as client:
        assert client.predict_url == "http://127.0.0.1:1/predictions/..%2F..%2Fmodels%3Fx%23y"


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..b", "no-such-host.invalid"])
def test_a_host_that_no_dns_knows_is_one_sentence(host: str) -> None:
    with Client(f"http://{host}:8080") as client, pytest.raises((PredictionError, MarqueeError)):
        client.predict(["x"])
