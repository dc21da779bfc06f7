"""Waits for Google's long-running operations, and finds those that an interrupted run began."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pipeline.deploy.answers import Unanswered
from pipeline.deploy.connection import Connection
from pipeline.progress import Progress

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 10.0
_NOTE_EVERY_SECONDS = 30.0
_PATIENCE_SECONDS = 600.0


def wait(connection: Connection, operation: Any, doing: str, progress: Progress) -> Any:
    """Wait for an operation and return its result; raises the operation's error if it fails.

    Raises Unanswered after ``connection.operation_seconds``; the operation then goes on in the cloud.
    """
    _watch(operation.done, doing, operation.operation.name, connection.operation_seconds, progress)
    return operation.result()


def await_running(connection: Connection, resource: str, progress: Progress) -> int:
    """Wait until every operation on a model or endpoint has ended that an interrupted run began.

    Whether they succeeded does not matter: the caller reads the state afterwards. Returns their number.
    """
    running = [operation.name for operation in _listed(connection, resource) if not operation.done]
    for name in running:
        progress.note(f"waiting for an operation that an earlier run began: {name}")
        is_done = _question(connection, name)
        _watch(is_done, "an operation of an earlier run", name, connection.operation_seconds, progress)
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


def _question(connection: Connection, name: str) -> Callable[[], bool]:
    return lambda: bool(connection.endpoints.get_operation({"name": name}).done)


def _answers_yes(is_done: Callable[[], bool], started: float) -> bool:
    """Whether the operation is done; False when the service does not answer for a moment."""
    from google.api_core.exceptions import ServiceUnavailable

    try:
        return is_done()
    except ServiceUnavailable:
        if time.monotonic() - started > _PATIENCE_SECONDS:
            raise
        return False


def _watch(is_done: Callable[[], bool], doing: str, name: str, seconds: float, progress: Progress) -> None:
    started = noted = time.monotonic()
    pause = _FIRST_PAUSE_SECONDS
    while not _answers_yes(is_done, started):
        now = time.monotonic()
        if now - started > seconds:
            raise Unanswered(
                f"{doing} is not done after {seconds:g} s (operation_timeout); "
                f"it continues in the cloud: {name}",
                cure="run it again: it finds the operation and waits for it",
            )
        if now - noted > _NOTE_EVERY_SECONDS:
            noted = now
            progress.note(f"{doing}: {now - started:.0f} s so far")
        time.sleep(min(pause, max(0.01, seconds - (now - started))))
        pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)
