"""Batches as TorchServe hands them to a handler."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def handle(door: Any, root: Path, rows: Sequence[Any]) -> list[tuple[int, Any]]:
    """Hand rows to the door as one batch; get (status, parsed answer) for each."""
    context = make_context(root, len(rows))
    answers = door.handle(rows, context)
    assert len(answers) == len(rows)
    for index in range(len(rows)):
        assert context.get_response_content_type(index) == "application/json"
    return [(context.get_response_status(index)[0], json.loads(text)) for index, text in enumerate(answers)]


def make_context(root: Path, requests: int, headers: dict[str, str] | None = None) -> Any:
    """TorchServe's own context object for a batch of so many requests."""
    from ts.context import Context, RequestProcessor

    context = Context("model", str(root), {}, 8, None, "0.12.0")
    context.request_ids = {index: f"request-{index}" for index in range(requests)}
    context.request_processor = [RequestProcessor(dict(headers or {})) for _ in range(requests)]
    return context
