"""What a predict call may weigh in either direction, and how long it may take."""

from __future__ import annotations

from pipeline.rules.table import Violation, table


def check_request_size(size: int, dedicated: bool) -> list[Violation]:
    """``size`` is the request body's bytes."""
    limit = table().limits(dedicated).request_bytes
    if size <= limit:
        return []
    return [table().violation("request_size", "instances", size, limit=limit)]


def check_response_size(size: int, dedicated: bool, endpoint: str) -> list[Violation]:
    """``size`` is the response body's bytes; ``endpoint`` its id, which Google's text names."""
    limit = table().limits(dedicated).response_bytes
    if size <= limit:
        return []
    return [table().violation("response_size", "predictions", size, limit=limit, endpoint=endpoint)]


def predict_timeout(dedicated: bool, inference_timeout: int | None = None) -> int:
    """Seconds after which an endpoint gives up: 60 on a shared one whatever the client says."""
    if dedicated and inference_timeout:
        return inference_timeout
    return table().limits(dedicated).timeout_seconds
