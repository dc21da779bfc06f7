"""The check of the gRPC servers: a request needs the token, and must not come from a browser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from grpc_status import rpc_status

from pipeline.cloud.gate import Refused, refuse_browsers
from pipeline.cloud.tokens import Tokens
from pipeline.cloud.vertex.failures import ServiceFailure


class TokenInterceptor(grpc.ServerInterceptor):  # type: ignore[misc]
    """Refuses calls without the token. What Host is to HTTP, TLS with the cloud's own certificate is here."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        pairs = [(name, value) for name, value in details.invocation_metadata if isinstance(value, str)]
        try:
            refuse_browsers(pairs)
            self._tokens.check([value for name, value in pairs if name == "authorization"])
        except Refused as refused:
            return _refuse(refused)
        return continuation(details)


def _refuse(refused: Refused) -> Any:
    """Answers with the refusal; as a handler of a stream it never asks for the request's content."""
    status = rpc_status.to_status(ServiceFailure(refused.code, refused.message, refused.reason).status())

    def answer(_: Any, context: Any) -> Any:
        context.abort_with_status(status)

    return grpc.stream_unary_rpc_method_handler(answer)
