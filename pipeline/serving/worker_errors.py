"""The worker's own words, found in TorchServe's logs."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

# What our log4j2.xml puts before a line: date, level, thread.
PREFIX = re.compile(r"^\S+ \[\w+ *\] \S+ - ")
ERROR_LINE = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception|Exit|Interrupt)(?:: .+)?$")
# The worker's main loop ends with this line; what follows is its own traceback, which says nothing new.
DEATH = "Backend worker process died"
# An ImportError inside the handler is hidden behind a second one (ts/model_loader.py, _load_default_handler).
MASK = "ts.torch_handler."
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
    """The last error of the newest worker, "RuntimeError: unet/... is missing"; None without one."""
    errors = [line for line in worker_lines(logs) if ERROR_LINE.match(line) and MASK not in line]
    return errors[-1] if errors else None


def worker_lines(logs: Path, last: int | None = None) -> list[str]:
    """What the newest worker printed before it died, if it did; only the ``last`` lines if given."""
    lines = [PREFIX.sub("", line) for line in _tail(logs / "model_log.log")]
    births = [number for number, line in enumerate(lines) if line.startswith("s_name_part0=")]
    own = lines[births[-1] :] if births else lines
    own = list(itertools.takewhile(lambda line: not line.startswith(DEATH), own))
    return own if last is None else own[-last:]


def count_worker_deaths(logs: Path) -> int:
    """How many times TorchServe has had to start a worker again since it was started itself."""
    return sum("Retry worker" in line for line in _tail(logs / "ts_log.log"))


def _tail(path: Path) -> list[str]:
    try:
        with path.open("rb") as log:
            size = log.seek(0, 2)
            log.seek(max(0, size - TAIL_BYTES))
            return log.read().decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return []
