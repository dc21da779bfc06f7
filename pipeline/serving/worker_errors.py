"""The worker's own error, found in its last lines, and what TorchServe's logs hold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pipeline.serving.worker_reports import WorkerEnd

# What our log4j2.xml puts before a line: date, level, thread.
PREFIX = re.compile(r"^\S+ \[\w+ *\] \S+ - ")
ERROR_LINE = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception|Exit|Interrupt)(?:: .+)?$")
STACK_LINE = re.compile(r"^\s+(?:at |\.\.\. \d+ more)")
# Errors that only say that there was another: an ImportError of the handler is masked by a second one
# (ts/model_loader.py, _load_default_handler), a RuntimeError by its status (ts/model_service_worker.py).
MASKS = re.compile(r"ts\.torch_handler\.|^RuntimeError: \d{3} - ")
TAIL_BYTES = 256 * 1024


def death_cause(end: WorkerEnd) -> str:
    """The error that the worker printed last, such as "RuntimeError: ..."; else its exit code or signal."""
    by_itself = not end.stopped and end.code is not None and end.code >= 0
    # TorchServe ends a worker whose load failed before it has ended itself: its error comes first.
    return (_last_error(end.lines) if by_itself or not end.served else None) or end.cause


def _last_error(lines: Sequence[str]) -> str | None:
    errors = [line for line in lines if ERROR_LINE.match(line) and not MASKS.search(line)]
    return errors[-1] if errors else None


def log_tail(logs: Path, lines: int) -> str:
    """The last ``lines`` of each log that has any, headed by its name."""
    parts = []
    for name in ("console.log", "ts_log.log", "model_log.log"):
        tail = _tail(logs / name)[-lines:]
        if tail:
            parts.append("\n".join([f"--- {name}", *tail]))
    return "\n".join(parts)


def server_complaints(logs: Path) -> list[str]:
    """What TorchServe itself, not its worker, warned of, with the causes and without Java's stack."""
    lines = [PREFIX.sub("", line) for line in _tail(logs / "ts_log.log")]
    return [line for line in lines if line and not STACK_LINE.match(line)]


def _tail(path: Path) -> list[str]:
    try:
        with path.open("rb") as log:
            size = log.seek(0, 2)
            log.seek(max(0, size - TAIL_BYTES))
            return log.read().decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return []
