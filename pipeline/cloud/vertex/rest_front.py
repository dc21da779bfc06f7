"""The REST front of the local Vertex AI: HTTP/1.1 in plain text and over TLS on one loopback port."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pipeline.cloud.body import Body
from pipeline.cloud.gate import Refused, refuse_other_than_json
from pipeline.cloud.http_server import GatedHandler, GatedServer
from pipeline.cloud.tokens import Keys
from pipeline.cloud.vertex.calls import Call, Handler, RawAnswer
from pipeline.cloud.vertex.failures import ServiceFailure
from pipeline.cloud.vertex.methods import Method
from pipeline.cloud.vertex.transcode import find_route, read_request, write_json

DEDICATED_DOMAIN = ".prediction.vertexai.goog"
_TLS_HANDSHAKE = b"\x16"  # the first byte of every TLS connection, of no HTTP request
# The service states its own limits in its own words; this one only bounds what is held in memory before.
_MOST_BYTES = 64 << 20
_RAW_METHODS = {"PredictionService.RawPredict", "PredictionService.StreamRawPredict"}


@dataclass(frozen=True)
class Listening:
    """What a REST port serves; ``dedicated`` marks the port that dedicated endpoints' names lead to."""

    methods: Sequence[Method]
    handlers: Mapping[str, Handler]
    keys: Keys
    dedicated: bool = False


class RestServer(GatedServer):
    """Serves in threads of its own from ``start()`` to ``stop()``."""

    def __init__(self, listening: Listening, port: int = 0) -> None:
        super().__init__("vertex", listening.keys.tokens, _Exchange, port)
        self.listening = listening
        self.tls = listening.keys.certificate.server_context()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Both kinds of connection come to one port; the handshake happens here, off the accepting thread."""
        with contextlib.suppress(ssl.SSLError, ConnectionError, TimeoutError):
            request.settimeout(_Exchange.timeout)
            if request.recv(1, socket.MSG_PEEK) == _TLS_HANDSHAKE:
                with self.tls.wrap_socket(request, server_side=True) as secured:
                    super().finish_request(secured, client_address)
            else:
                super().finish_request(request, client_address)


class _Exchange(GatedHandler):
    server: RestServer

    def respond(self, body: Body) -> None:
        try:
            answer = self._dispatch(body)
        except ServiceFailure as failure:
            answer = RawAnswer(failure.http_status, json.dumps(failure.document()).encode())
        if not body.drain(_MOST_BYTES):
            self.close_connection = True
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(answer.body if self.command != "HEAD" else b"")

    def refusal(self, refused: Refused) -> tuple[str, bytes]:
        failure = ServiceFailure(refused.code, refused.message, refused.reason)
        return "application/json", json.dumps(failure.document()).encode()

    def _dispatch(self, body: Body) -> RawAnswer:
        content = body.read(_MOST_BYTES)
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
        call = Call(len(content), dedicated, content, content_type)
        raw = method.key in _RAW_METHODS or (dedicated and method.name == "Predict")
        if content and method.key not in _RAW_METHODS:
            refuse_other_than_json(self.headers.get("Content-Type"))
        request = read_request(method, route, match, url.query, b"" if raw else content)
        answer = handler(request, call)
        if isinstance(answer, RawAnswer):
            return answer
        return RawAnswer(200, write_json(answer, "enum-encoding=int" in url.query))

    def _host(self) -> str:
        return str(self.headers.get("Host", "")).partition(":")[0]


def unserved(method: Method) -> ServiceFailure:
    return ServiceFailure("UNIMPLEMENTED", f"marquee's local cloud does not serve {method.key}")
