"""What the local cloud's HTTP servers promise beyond HTTP itself: resets, an end to silence, TLS, no log."""

from __future__ import annotations

import logging
import socket
import ssl

import pytest
from google.cloud import storage
from local_storage import LocalStorage, tokens
from plain_http import Answer, request, send
from standing_cloud import Standing

from pipeline.cloud import http_connection
from pipeline.cloud.state import port_of
from pipeline.cloud.storage.server import StorageServer

UPLOAD = "/upload/storage/v1/b/pictures/o?uploadType=media&name=one"
HALF = b"a: b\r\nContent-Length: 100\r\n\r\n" + b"x" * 50


def upload_head(path: str = UPLOAD) -> bytes:
    """The first lines of an upload; its last headers, the empty line and its body are the test's."""
    token = f"Authorization: Bearer {tokens().issue()}\r\n"
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{token}".encode()


def ended(connection: socket.socket) -> bool:
    """Read until the server has closed or reset the connection; a TimeoutError where it does neither."""
    try:
        while connection.recv(1 << 16):
            pass
    except ConnectionError:
        pass
    return True


def test_an_upload_is_cut_with_a_reset(local: LocalStorage, bucket: storage.Bucket) -> None:
    url = bucket.blob("one").create_resumable_upload_session(size=1 << 20)
    local.set_fault("upload-cut,after_bytes=1000")
    content = request("PUT", "/" + url.split("/", 3)[3], bytes(1 << 20))
    with socket.create_connection(("127.0.0.1", local.server.port), timeout=60) as connection:
        connection.sendall(content[:2000])
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


@pytest.mark.usefixtures("bucket")
def test_a_sender_may_close_its_half_before_the_answer(local: LocalStorage) -> None:
    answer = send(local.server.url, upload_head() + b"Content-Length: 3\r\n\r\nabc", half_close=True)
    assert (answer.status, local.content("one")) == (200, b"abc")


@pytest.mark.usefixtures("bucket")
def test_chunk_extensions_and_trailers_are_read_and_forgotten(local: LocalStorage) -> None:
    """RFC 9112, 7.1.1: "A recipient MUST ignore unrecognized chunk extensions"; h11 reads no trailers."""
    chunks = b"1;" + b"e" * 5000 + b"\r\nx\r\n0\r\n" + b"a: b\r\n" * 200 + b"\r\n"
    answer = send(local.server.url, upload_head() + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
    assert (answer.status, local.content("one")) == (200, b"x")


@pytest.mark.parametrize("chunks", [b"1;" + b"e" * 2_000_000, b"0\r\n" + b"a: b\r\n" * 400_000])
def test_endless_extensions_and_trailers_are_not_held(
    local: LocalStorage, bucket: storage.Bucket, chunks: bytes
) -> None:
    """The server may close before all is sent, and the reset that follows may overtake its answer."""
    answer = send(local.server.url, upload_head() + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
    assert answer.status in (0, 400)
    assert not bucket.blob("one").exists()


@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize("content", [b"", b"POST / HT", upload_head(), upload_head() + HALF])
def test_a_silent_client_is_sent_away(
    local: LocalStorage, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(http_connection, "SILENCE", 0.3)
    assert send(local.server.url, content) == Answer(0, "", b"")
    local.server.stop()  # it waits for the thread that throws the draft away
    assert list(local.store.uploads.iterdir()) == []


@pytest.mark.usefixtures("bucket")
def test_a_server_that_stops_waits_for_no_sender(local: LocalStorage) -> None:
    with socket.create_connection(("127.0.0.1", local.server.port), timeout=60) as connection:
        connection.sendall(upload_head() + HALF)
        local.restart()
        assert ended(connection)
    assert list(local.store.uploads.iterdir()) == []


@pytest.mark.timeout(30)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_server_that_cannot_start_keeps_nobody_waiting(
    local: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def startup(*_: object, **__: object) -> None:
        raise RuntimeError("no file descriptor is left")

    monkeypatch.setattr(http_connection.Server, "startup", startup)
    with pytest.raises(RuntimeError, match="the local cloud's storage server did not start"):
        StorageServer(local.store, local.faults, tokens())


def test_no_path_and_no_token_is_logged(local: LocalStorage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    send(local.server.url, upload_head(f"{UPLOAD}&upload_id=secret-of-a-session") + b"\r\n")
    send(local.server.url, b"GET /secret-of-a-session\r\n\r\n", half_close=True)
    assert "secret-of-a-session" not in caplog.text
    assert "Bearer" not in caplog.text


def test_plain_http_and_tls_come_to_one_port(cloud: Standing) -> None:
    content = request("GET", "/v1/projects/p/locations/us-central1/models", Authorization=cloud.bearer)
    trusted = ssl.create_default_context(cafile=cloud.running.ca_file)
    for address in (cloud.running.vertex_rest, cloud.running.dedicated):
        assert send(address, content).status in (200, 404)
        plain = socket.create_connection(("127.0.0.1", port_of(address)), timeout=60)
        with plain, trusted.wrap_socket(plain, server_hostname="localhost") as secured:
            secured.sendall(content)
            assert secured.recv(12) in (b"HTTP/1.1 200", b"HTTP/1.1 404")
