"""The hosts that the proxy answers for, and how it tells gRPC from REST."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.cloud.certificates import Certificate, ensure_certificate
from pipeline.cloud.client_hello import offered_protocols
from pipeline.cloud.hosts import service_for
from pipeline.cloud.proxy import Backend, Proxy

HOST = "us-central1-aiplatform.googleapis.com"


@pytest.mark.parametrize(
    ("host", "service"),
    [
        (HOST, "vertex"),
        ("1.us-central1-2.prediction.vertexai.goog", "vertex"),
        ("STORAGE.googleapis.com", "storage"),
        ("bucket.storage.googleapis.com", "storage"),
        ("oauth2.googleapis.com", "accounts"),
        ("bigquery.googleapis.com", None),
        ("storage.googleapis.com.example.com", None),
        ("example.com", None),
    ],
)
def test_hosts(host: str, service: str | None) -> None:
    assert service_for(host) == service


def hello(protocols: list[str]) -> bytes:
    """What a real TLS client sends first."""
    context = ssl.create_default_context()
    if protocols:
        context.set_alpn_protocols(protocols)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=HOST)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("protocols", [[], ["h2"], ["http/1.1"], ["h2", "http/1.1"]])
def test_offered_protocols(protocols: list[str]) -> None:
    assert offered_protocols(hello(protocols)) == protocols


@pytest.mark.parametrize("length", range(0, 200, 7))
def test_a_hello_cut_short_offers_nothing(length: int) -> None:
    assert offered_protocols(hello(["h2"])[:length]) == []


class Echo(BaseHTTPRequestHandler):
    """Answers with the body it got, in capitals."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.upper())

    def log_message(self, format: str, *args: object) -> None:
        pass


class Backends:
    """An HTTP server, and a TLS server that says "grpc" to whoever speaks h2."""

    def __init__(self, certificate: Certificate) -> None:
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
        self.grpc = socket.create_server(("127.0.0.1", 0))
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.load_cert_chain(certificate.certificate_file, certificate.key_file)
        self.context.set_alpn_protocols(["h2"])
        threading.Thread(target=self.http.serve_forever, args=(0.05,)).start()
        threading.Thread(target=self.serve_grpc).start()

    def serve_grpc(self) -> None:
        try:
            while True:
                connection, _ = self.grpc.accept()
                with self.context.wrap_socket(connection, server_side=True) as tls:
                    tls.sendall(b"grpc")
        except OSError:
            return

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.grpc.shutdown(socket.SHUT_RDWR)
        self.grpc.close()


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return ensure_certificate(tmp_path)


@pytest.fixture
def proxy(certificate: Certificate) -> Iterator[Proxy]:
    backends = Backends(certificate)
    http, grpc = backends.http.server_address, backends.grpc.getsockname()
    proxy = Proxy({"vertex": Backend(("127.0.0.1", http[1]), grpc)}, certificate)
    yield proxy
    proxy.stop()
    backends.stop()


def connect(proxy: Proxy, target: str) -> tuple[socket.socket, bytes]:
    connection = socket.create_connection(("127.0.0.1", proxy.port), timeout=60)
    connection.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    return connection, connection.recv(4096)


def tunnel(proxy: Proxy, certificate: Certificate, protocols: list[str]) -> ssl.SSLSocket:
    connection, answer = connect(proxy, f"{HOST}:443")
    assert answer.startswith(b"HTTP/1.1 200")
    context = ssl.create_default_context(cafile=str(certificate.ca_file))
    if protocols:
        context.set_alpn_protocols(protocols)
    return context.wrap_socket(connection, server_hostname=HOST)


@pytest.mark.parametrize("protocols", [[], ["http/1.1"], ["h2", "http/1.1"]])
def test_rest_ends_in_the_http_server(proxy: Proxy, certificate: Certificate, protocols: list[str]) -> None:
    body = b"large " * 500_000
    with tunnel(proxy, certificate, protocols) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body))
        connection.sendall(body)
        answer = b""
        while block := connection.recv(1 << 20):
            answer += block
    assert answer.endswith(b"\r\n\r\n" + body.upper())


def test_grpc_reaches_the_grpc_server_unopened(proxy: Proxy, certificate: Certificate) -> None:
    with tunnel(proxy, certificate, ["h2"]) as connection:
        assert connection.recv(100) == b"grpc"


@pytest.mark.parametrize(
    "target", ["example.com:443", f"{HOST}:80", "storage.googleapis.com:443", "nonsense"]
)
def test_refusals(proxy: Proxy, target: str) -> None:
    connection, answer = connect(proxy, target)
    with connection:
        assert answer.startswith(b"HTTP/1.1 403")
        assert target.encode() in answer
        assert connection.recv(1) == b""


def test_client_that_goes_away_does_no_harm(proxy: Proxy, certificate: Certificate) -> None:
    for _ in range(3):
        connection, _ = connect(proxy, f"{HOST}:443")
        connection.sendall(b"\x16\x03\x01")
        connection.close()
    test_grpc_reaches_the_grpc_server_unopened(proxy, certificate)
