"""The REST front of the local Vertex AI: HTTP/1.1 in plain text and over TLS on one loopback port."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from starlette.responses import Response

from pipeline.cloud.gate import Refused, refuse_other_than_json
from pipeline.cloud.http_server import GatedServer, Incoming
from pipeline.cloud.tokens import Keys
from pipeline.cloud.vertex.calls import Call, Handler, RawAnswer
from pipeline.cloud.vertex.failures import ServiceFailure
from pipeline.cloud.vertex.methods import Method
from pipeline.cloud.vertex.transcode import find_route, read_request, write_json

DEDICATED_DOMAIN = ".prediction.vertexai.goog"
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
    """Serves in threads of its own from ``start()`` to ``stop()``, plain HTTP and TLS on one port."""

    def __init__(self, listening: Listening, port: int = 0) -> None:
        tls = listening.keys.certificate.server_context()
        super().__init__("vertex", listening.keys.tokens, port, tls)
        self._listening = listening

    def respond(self, request: Incoming) -> Response:
        try:
            answer = self._dispatch(request)
        except ServiceFailure as failure:
            answer = RawAnswer(failure.http_status, json.dumps(failure.document()).encode())
        headers = {"Content-Type": answer.content_type, **answer.headers}
        return Response(answer.body, answer.status, headers)

    def refusal(self, request: Incoming, refused: Refused) -> tuple[str, bytes]:
        failure = ServiceFailure(refused.code, refused.message, refused.reason)
        return "application/json", json.dumps(failure.document()).encode()

    def _dispatch(self, request: Incoming) -> RawAnswer:
        content, headers = request.body.read(_MOST_BYTES), request.headers
        found = find_route(self._listening.methods, request.method, request.path)
        if found is None:
            raise ServiceFailure("NOT_FOUND", f"No method answers {request.method} {request.path}")
        method, route, match = found
        handler = self._listening.handlers.get(method.key)
        if handler is None:
            raise unserved(method)
        host = headers.get("Host", "").partition(":")[0]
        dedicated = self._listening.dedicated or host.endswith(DEDICATED_DOMAIN)
        call = Call(len(content), dedicated, content, headers.get("Content-Type", "application/json"))
        raw = method.key in _RAW_METHODS or (dedicated and method.name == "Predict")
        if content and method.key not in _RAW_METHODS:
            refuse_other_than_json(headers.get("Content-Type"))
        message = read_request(method, route, match, request.query, b"" if raw else content)
        answer = handler(message, call)
        if isinstance(answer, RawAnswer):
            return answer
        return RawAnswer(200, write_json(answer, "enum-encoding=int" in request.query))


def unserved(method: Method) -> ServiceFailure:
    return ServiceFailure("UNIMPLEMENTED", f"marquee's local cloud does not serve {method.key}")
