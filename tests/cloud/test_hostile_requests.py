"""Broken or huge requests get an answer or a closed connection, and other requests are not affected."""

from __future__ import annotations

import gzip
from pathlib import Path

import grpc
import pytest
from plain_http import send
from standing_cloud import LOCATION, Standing

from pipeline.cloud.state import port_of

pytestmark = pytest.mark.usefixtures("hostile_bucket", "unharmed")
SERVICES = ("storage", "vertex_rest", "dedicated", "accounts")
MEDIA = "/upload/storage/v1/b/hostile/o?uploadType=media&name=x"


def post(token: str, path: str, headers: str, body: bytes = b"") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {token}\r\nConnection: close\r\n"
    return (head + headers + "\r\n").encode("latin-1") + body


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize(
    "content",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"GET /\r\n\r\n",
        b"BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET " + b"/x" * 40_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 500 + b"\r\n",
        b"GET http://a.example/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"\x80\x00\xff" * 100,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=range(13),
)
def test_malformed_http(cloud: Standing, service: str, content: bytes) -> None:
    answer = send(getattr(cloud.running, service), content, half_close=True)
    assert answer.status == 0 or 400 <= answer.status < 600


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ("Content-Length: -1\r\n", b"x"),
        ("Content-Length: +1\r\n", b"x"),
        ("Content-Length: 1_0\r\n", b"x" * 10),
        ("Content-Length: one\r\n", b"x"),
        ("Content-Length: 1\r\nContent-Length: 2\r\n", b"xx"),
        ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", b"1\r\nx\r\n0\r\n\r\n"),
        ("Transfer-Encoding: gzip, chunked\r\n", b"1\r\nx\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", b"-5\r\nxxxxx\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", b"zz\r\nx\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", b"\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", b"1\r\nxxxx\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", b"f" * 5000 + b"\r\nx"),
    ],
    ids=range(12),
)
def test_bodies_that_do_not_say_where_they_end(
    cloud: Standing, service: str, headers: str, body: bytes
) -> None:
    path = MEDIA if service == "storage" else "/v1/projects/p:testIamPermissions"
    answer = send(getattr(cloud.running, service), post(cloud.bearer, path, headers, body))
    assert (answer.status, answer.head.lower().count("connection: close")) == (400, 1)
    assert cloud.call("storage", "GET", "/storage/v1/b/hostile/o/x").status == 404


def test_a_body_that_is_cut_short_leaves_nothing(cloud: Standing) -> None:
    for headers in ("Content-Length: 99\r\n", "Transfer-Encoding: chunked\r\n"):
        content = post(cloud.bearer, MEDIA, headers, b"63\r\nabc")
        assert send(cloud.running.storage, content, half_close=True).status == 0
    assert cloud.call("storage", "GET", "/storage/v1/b/hostile/o/x").status == 404
    assert not any((cloud.folder.storage / "uploads").iterdir())


def deep(opening: str, closing: str, inner: str = "1") -> bytes:
    return (opening * 60_000 + inner + closing * 60_000).encode()


JSON_CALLS = [
    ("storage", "POST", "/storage/v1/b?project=p"),
    ("storage", "PATCH", "/storage/v1/b/hostile"),
    ("storage", "PUT", "/storage/v1/b/hostile/iam"),
    ("storage", "POST", "/storage/v1/b/hostile/o/x/compose"),
    ("storage", "POST", "/upload/storage/v1/b/hostile/o?uploadType=resumable"),
    ("vertex_rest", "POST", f"/v1/{LOCATION}/endpoints"),
    ("vertex_rest", "POST", f"/v1/{LOCATION}/models:upload"),
    ("vertex_rest", "POST", f"/v1/{LOCATION}/endpoints/1:predict"),
    ("accounts", "POST", "/v1/projects/p:testIamPermissions"),
]


@pytest.mark.parametrize(("service", "method", "path"), JSON_CALLS)
@pytest.mark.parametrize(
    "body",
    [
        deep("[", "]"),
        deep('{"name":', "}"),
        b'{"name": "one", "name": "two"}',
        b'{"a": {"displayName": "one", "displayName": "two"}}',
        b'{"name": NaN}',
        b'{"name": ' + b"9" * 5000 + b"}",
        b'{"name": 1e999}',
        b'{"name": "\\ud800"}',
        b'{"displayName": "\\ud800"}',
        b"\xff\xfe{",
        b'"text"',
        b"null",
        gzip.compress(bytes(1 << 20)),
    ],
    ids=range(13),
)
def test_hostile_json(cloud: Standing, service: str, method: str, path: str, body: bytes) -> None:
    answer = cloud.call(service, method, path, body)
    assert 400 <= answer.status < 500, answer
    if b'"one"' in body:
        assert b"twice" in answer.body


def test_json_that_is_too_long_is_refused_before_it_is_held(cloud: Standing) -> None:
    body = b'{"name": "' + b"x" * (66 << 20) + b'"}'
    for service, method, path in (JSON_CALLS[0], JSON_CALLS[5], JSON_CALLS[8]):
        answer = cloud.call(service, method, path, body)
        assert (answer.status, b"exceeds the limit" in answer.body) == (400, True)


def test_the_proxy_takes_nonsense(cloud: Standing) -> None:
    for content in (
        b"\r\n\r\n",
        b"CONNECT\r\n\r\n",
        b"CONNECT \xff\xfe:443 HTTP/1.1\r\n\r\n",
        b"GET http://storage.googleapis.com/ HTTP/1.1\r\nHost: storage.googleapis.com\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: https://a.example\r\n\r\n",
        b"CONNECT 127.0.0.1:22 HTTP/1.1\r\n\r\n",
        b"CONNECT localhost:443 HTTP/1.1\r\n\r\n",
        b"CONNECT storage.googleapis.com:443@a.example:443 HTTP/1.1\r\n\r\n",
        b"CONNECT storage.googleapis.com.a.example:443 HTTP/1.1\r\n\r\n",
        b"CONNECT a.example/storage.googleapis.com:443 HTTP/1.1\r\n\r\n",
        b"CONNECT storage.googleapis.com:22 HTTP/1.1\r\n\r\n",
    ):
        answer = send(cloud.running.proxy, content)
        length = next(line for line in answer.head.splitlines() if line.startswith("Content-Length"))
        assert (answer.status, int(length.split()[1])) == (403, len(answer.body)), content
    for content in (
        b"x" * 300_000,
        b"CONNECT storage.googleapis.com:443 HTTP/1.1\r\n\r\nnonsense that is no TLS",
    ):
        assert b"HTTP/1.1 2" not in send(cloud.running.proxy, content, half_close=True).body


def test_grpc_messages_that_are_broken_or_too_large(cloud: Standing) -> None:
    """A message that is short on the wire and long when unpacked counts as long."""
    roots = grpc.ssl_channel_credentials(Path(cloud.running.ca_file).read_bytes())
    large = bytes(65 << 20)
    with grpc.secure_channel(cloud.running.vertex_grpc, roots) as channel:
        call = channel.unary_unary("/google.cloud.aiplatform.v1.ModelService/ListModels")
        wrong = [
            (b"\xff" * 100, None, grpc.StatusCode.INVALID_ARGUMENT),
            (large, None, grpc.StatusCode.RESOURCE_EXHAUSTED),
            (large, grpc.Compression.Gzip, grpc.StatusCode.RESOURCE_EXHAUSTED),
        ]
        for content, compression, code in wrong:
            with pytest.raises(grpc.RpcError) as failure:
                call(
                    content,
                    metadata=[("authorization", cloud.bearer)],
                    compression=compression,
                    timeout=60,
                )
            assert failure.value.code() == code, failure.value.details()


def test_everything_listens_on_loopback_alone(cloud: Standing) -> None:
    import psutil

    listening = {
        each.laddr.ip for each in psutil.Process().net_connections("tcp") if each.status == psutil.CONN_LISTEN
    }
    assert listening <= {"127.0.0.1", "::ffff:127.0.0.1"}  # the latter is how gRPC writes the former
    assert port_of(cloud.running.proxy)
