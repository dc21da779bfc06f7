"""The gRPC front of the local Vertex AI: TLS on a loopback port, the transport the SDK uses by default."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.api import httpbody_pb2
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from pipeline.cloud.token_interceptor import TokenInterceptor
from pipeline.cloud.tokens import Keys
from pipeline.cloud.vertex.calls import Call, Handler, RawAnswer, bare
from pipeline.cloud.vertex.failures import ServiceFailure, code_of_http_status, invalid
from pipeline.cloud.vertex.methods import Method
from pipeline.cloud.vertex.rest_front import unserved

# The service refuses large messages with its own text, so gRPC's limit (4 MiB) must not apply first. This one
# only bounds the memory that a message takes before that, also a compressed one.
_MOST_BYTES = 64 << 20
_OPTIONS = [
    ("grpc.max_receive_message_length", _MOST_BYTES),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
]
_THREADS = 64  # each waiting prediction holds one


class GrpcServer:
    """Serves from construction to ``stop()``; ``address`` is host:port, named as the certificate names it."""

    def __init__(
        self,
        methods: Sequence[Method],
        handlers: Mapping[str, Handler],
        keys: Keys,
        port: int = 0,
    ) -> None:
        pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="grpc")
        self._server = grpc.server(pool, interceptors=[TokenInterceptor(keys.tokens)], options=_OPTIONS)
        for service in {method.service for method in methods}:
            served = {m.name: _serve(m, handlers.get(m.key)) for m in methods if m.service == service}
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, served),))
        credentials = keys.certificate.grpc_credentials()
        bound = self._server.add_secure_port(f"127.0.0.1:{port}", credentials)
        self.address = f"localhost:{bound}"
        self._server.start()

    def stop(self) -> None:
        self._server.stop(grace=1).wait()


def _serve(method: Method, handler: Handler | None) -> Any:
    def answer(raw: bytes, context: Any) -> Any:
        try:
            if handler is None:
                raise unserved(method)
            return _plain(handler(_read(method, raw), Call(size=len(raw))), context)
        except ServiceFailure as failure:
            context.abort_with_status(rpc_status.to_status(failure.status()))

    if method.streams:
        return grpc.unary_stream_rpc_method_handler(_as_stream(answer), None, _write)
    return grpc.unary_unary_rpc_method_handler(answer, None, _write)


def _read(method: Method, raw: bytes) -> Any:
    try:
        return method.read(raw)
    except DecodeError as error:
        raise invalid(f"The request message cannot be read: {error}") from error


def _as_stream(answer: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Iterator[Any]]:
    def stream(request: Any, context: Any) -> Iterator[Any]:
        yield answer(request, context)

    return stream


def _write(message: Any) -> bytes:
    return bytes(bare(message).SerializeToString())


def _plain(answer: Any, context: Any) -> Any:
    if not isinstance(answer, RawAnswer):
        return answer
    if answer.status != 200:
        raise ServiceFailure(code_of_http_status(answer.status), answer.body.decode("utf-8", "replace"))
    context.send_initial_metadata([(name.lower(), value) for name, value in answer.headers.items()])
    return httpbody_pb2.HttpBody(content_type=answer.content_type, data=answer.body)
