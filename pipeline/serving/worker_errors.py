"""The worker's own words, found in TorchServe's logs."""

from __future__ import annotations

import re
from pathlib import Path

# What our log4j2.xml puts before a line: date, level, thread.
PREFIX = re.compile(r"^\S+ \[\w+ *\] \S+ - ")
ERROR_LINE = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception|Exit|Interrupt)(?:: .+)?$")
STACK_LINE = re.compile(r"^\s+(?:at |\.\.\. \d+ more)")
BIRTH = "s_name_part0="
# Errors that only say that there was another: an ImportError of the handler is masked by a second one
# (ts/model_loader.py, _load_default_handler), a RuntimeError by its status (ts/model_service_worker.py).
MASKS = re.compile(r"ts\.torch_handler\.|^RuntimeError: \d{3} - ")
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
    """The last error of the worker that died last, "RuntimeError: unet/... is missing"; None without one."""
    errors = [line for line in worker_lines(logs) if ERROR_LINE.match(line) and not MASKS.search(line)]
    return errors[-1] if errors else None


def worker_lines(logs: Path, last: int | None = None) -> list[str]:
    """What the worker that died last (the only one, where none died) printed; at most the ``last`` lines."""
    workers: list[list[str]] = [[]]
    for line in _tail(logs / "model_log.log"):
        text = PREFIX.sub("", line)
        if text.startswith(BIRTH):
            workers.append([])
        workers[-1].append(text)
    deaths = count_worker_deaths(logs)
    newest = len(workers) - 1
    return workers[min(deaths, newest) if deaths else newest][-(last or 0) :]


def count_worker_deaths(logs: Path) -> int:
    """How many times TorchServe has had to start a worker again since it was started itself."""
    return sum("Retry worker" in line for line in _tail(logs / "ts_log.log"))


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
