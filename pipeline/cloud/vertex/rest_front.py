"""The REST front of the local Vertex AI: HTTP/1.1 in plain text and over TLS on one loopback port."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from pipeline.cloud.vertex.calls import Call, Handler, RawAnswer
from pipeline.cloud.vertex.failures import ServiceFailure
from pipeline.cloud.vertex.methods import Method
from pipeline.cloud.vertex.transcode import find_route, read_request, write_json

DEDICATED_DOMAIN = ".prediction.vertexai.goog"
_TLS_HANDSHAKE = b"\x16"  # the first byte of every TLS connection, of no HTTP request
_POLL_SECONDS = 0.05  # how long stop() waits for the accepting thread to notice
_RAW_METHODS = {"PredictionService.RawPredict", "PredictionService.StreamRawPredict"}


@dataclass(frozen=True)
class Listening:
    """What a REST port serves; ``dedicated`` marks the port that dedicated endpoints' names lead to."""

    methods: Sequence[Method]
    handlers: Mapping[str, Handler]
    tls: ssl.SSLContext
    dedicated: bool = False


class RestServer(ThreadingHTTPServer):
    """Serves in threads of its own from ``start()`` to ``stop()``."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, listening: Listening, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Exchange)
        self.listening = listening
        self.port: int = self.server_address[1]
        self._thread = threading.Thread(
            target=self.serve_forever, args=(_POLL_SECONDS,), name=f"rest-{self.port}", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Both kinds of connection come to one port; the handshake happens here, off the accepting thread."""
        with contextlib.suppress(ssl.SSLError, ConnectionError, TimeoutError):
            request.settimeout(120)
            if request.recv(1, socket.MSG_PEEK) == _TLS_HANDSHAKE:
                with self.listening.tls.wrap_socket(request, server_side=True) as secured:
                    super().finish_request(secured, client_address)
            else:
                super().finish_request(request, client_address)


class _Exchange(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: RestServer

    def setup(self) -> None:
        super().setup()
        # Head and body are two writes; with Nagle's algorithm the second would wait for an acknowledgement.
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, *_: Any) -> None:
        """Nothing: a request is not an event of the cloud's own log."""

    def _answer(self) -> None:
        body = self._read_body()
        try:
            answer = self._dispatch(body)
        except ServiceFailure as failure:
            answer = RawAnswer(failure.http_status, json.dumps(failure.document()).encode())
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)

    do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = _answer

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _dispatch(self, body: bytes) -> RawAnswer:
        url = urlsplit(self.path)
        listening = self.server.listening
        found = find_route(listening.methods, self.command, url.path)
        if found is None:
            raise ServiceFailure("NOT_FOUND", f"No method answers {self.command} {url.path}")
        method, route, match = found
        handler = listening.handlers.get(method.key)
        if handler is None:
            raise unserved(method)
        dedicated = listening.dedicated or self._host().endswith(DEDICATED_DOMAIN)
        content_type = self.headers.get("Content-Type", "application/json")
        call = Call(len(body), dedicated, body, content_type)
        raw = method.key in _RAW_METHODS or (dedicated and method.name == "Predict")
        request = read_request(method, route, match, url.query, b"" if raw else body)
        answer = handler(request, call)
        if isinstance(answer, RawAnswer):
            return answer
        return RawAnswer(200, write_json(answer, "enum-encoding=int" in url.query))

    def _host(self) -> str:
        return str(self.headers.get("Host", "")).partition(":")[0]


def unserved(method: Method) -> ServiceFailure:
    return ServiceFailure("UNIMPLEMENTED", f"marquee's local cloud does not serve {method.key}")
