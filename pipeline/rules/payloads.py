"""The limits of a predict call: bytes of the request and of the response, and seconds."""

from __future__ import annotations

from pipeline.rules.table import Violation, table


def check_request_size(size: int, dedicated: bool) -> list[Violation]:
    """Check a request body of ``size`` bytes."""
    limit = table().limits(dedicated).request_bytes
    if size <= limit:
        return []
    return [table().violation("request_size", "instances", size, limit=limit)]


def check_response_size(size: int, dedicated: bool, endpoint: str) -> list[Violation]:
    """Check a response body of ``size`` bytes; Google's text names the id of the ``endpoint``."""
    limit = table().limits(dedicated).response_bytes
    if size <= limit:
        return []
    return [table().violation("response_size", "predictions", size, limit=limit, endpoint=endpoint)]


def predict_timeout(dedicated: bool, inference_timeout: int | None = None) -> int:
    """Seconds after which an endpoint ends a request: 60 on a shared one, whatever the client asks for."""
    if dedicated and inference_timeout:
        return inference_timeout
    return table().limits(dedicated).timeout_seconds
