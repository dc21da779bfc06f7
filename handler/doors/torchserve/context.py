"""TorchServe's context of a batch (ts/context.py), as much of it as the door uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable, Protocol


class Context(Protocol):
    """``index`` is a request's place in the batch."""

    system_properties: Mapping[str, Any]
    """``model_dir``, and ``gpu_id`` where TorchServe assigned a GPU."""
    metrics: Any
    """ts.metrics.caching_metrics.CachingMetrics, from 0.8 on."""
    model_name: str
    request_ids: Mapping[int, str] | None
    stopping_criteria: Sequence[Callable[[object], bool | None]] | None
    """Under continuous batching, by index: whether the request is answered whole."""

    def get_request_header(self, idx: int, key: str) -> str | None: ...

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None: ...

    def set_response_content_type(self, idx: int, value: str) -> None: ...

    def set_response_header(self, idx: int, key: str, value: str) -> None: ...
