"""The worker's own words, found in TorchServe's logs."""

from __future__ import annotations

import re
from pathlib import Path

# What our log4j2.xml puts before a line: date, level, thread (and, in ts_log, the logger).
PREFIX = re.compile(r"^\S+ \[\w+ *\] \S+(?: \S+)? - ")
ERROR_LINE = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception|Exit|Interrupt|Killed)\b")
TAIL_BYTES = 256 * 1024


def log_tail(logs: Path, lines: int) -> str:
    """The last ``lines`` of each log that has any, headed by its name."""
    parts = []
    for name in ("console.log", "ts_log.log", "model_log.log"):
        tail = _tail(logs / name)[-lines:]
        if tail:
            parts.append("\n".join([f"--- {name}", *tail]))
    return "\n".join(parts)


def worker_error(logs: Path) -> str | None:
    """The last error the worker printed, with its message: "RuntimeError: unet/... is missing". None if none did."""
    lines = [PREFIX.sub("", line).strip() for line in _tail(logs / "model_log.log")]
    errors = [line for line in lines if ERROR_LINE.match(line)]
    return errors[-1] if errors else None


def load_failures(logs: Path) -> int:
    """How many times a worker process has ended since the server started."""
    return sum("Backend worker process died" in line for line in _tail(logs / "model_log.log"))


def _tail(path: Path) -> list[str]:
    try:
        with path.open("rb") as log:
            size = log.seek(0, 2)
            log.seek(max(0, size - TAIL_BYTES))
            return log.read().decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return []
