"""Google's long-running operations: waited for with the time spent so far, and found again after a break."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pipeline.deploy.connection import Connection
from pipeline.progress import Progress

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 10.0
_NOTE_EVERY_SECONDS = 30.0
_PATIENCE_SECONDS = 600.0


def wait(operation: Any, doing: str, progress: Progress) -> Any:
    """The result of an operation that a client's method returned; raises what it failed with."""
    _watch(operation.done, doing, progress)
    return operation.result()


def await_running(connection: Connection, resource: str, progress: Progress) -> int:
    """Wait until nothing runs any more on a model or endpoint that an earlier, interrupted run began.

    The state is read again after it, whatever became of it. Returns how many there were.
    """
    running = [operation.name for operation in _listed(connection, resource) if not operation.done]
    for name in running:
        progress.note(f"an operation of an earlier run still runs, waiting for it: {name}")
        _watch(lambda name=name: _is_done(connection, name), "waiting for it", progress)  # type: ignore[misc]
    return len(running)


def _listed(connection: Connection, resource: str) -> list[Any]:
    from google.api_core.exceptions import NotFound

    found: list[Any] = []
    request = {"name": resource, "page_token": ""}
    while True:
        try:
            page = connection.endpoints.list_operations(request)
        except NotFound:
            return found
        found += page.operations
        if not page.next_page_token:
            return found
        request["page_token"] = page.next_page_token


def _is_done(connection: Connection, name: str) -> bool:
    return bool(connection.endpoints.get_operation({"name": name}).done)


def _answers_yes(is_done: Callable[[], bool], started: float) -> bool:
    """Ask; a service that is not there for a moment has not said that the work is over."""
    from google.api_core.exceptions import ServiceUnavailable

    try:
        return is_done()
    except ServiceUnavailable:
        if time.monotonic() - started > _PATIENCE_SECONDS:
            raise
        return False


def _watch(is_done: Callable[[], bool], doing: str, progress: Progress) -> None:
    started = noted = time.monotonic()
    pause = _FIRST_PAUSE_SECONDS
    while not _answers_yes(is_done, started):
        if time.monotonic() - noted > _NOTE_EVERY_SECONDS:
            noted = time.monotonic()
            progress.note(f"{doing}: {noted - started:.0f} s so far")
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)
