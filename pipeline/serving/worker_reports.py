"""How the workers of one server ended, as their parent processes report it (see worker_process.py)."""

from __future__ import annotations

import contextlib
import json
import signal
import socketserver
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.1
LONGEST_REPORT = 4 * 1024 * 1024


@dataclass(frozen=True)
class WorkerEnd:
    """The end of one worker process.

    ``code``: its exit code, -n where signal n ended it, None where its monitor process was killed with it.
    ``stopped``: TorchServe ended it. ``lines``: its last ones; of a worker that has ``served`` those from
    standard error only, because TorchServe writes clients' text to the worker's standard output.
    """

    pid: int
    code: int | None
    stopped: bool = False
    served: bool = False
    lines: tuple[str, ...] = ()

    @property
    def cause(self) -> str:
        """The exit code or signal, as a phrase for a message."""
        if self.stopped:
            return "TorchServe ended it, as it does when a call takes longer than responseTimeout"
        if self.code is None:
            return "it was killed together with the process that watched it"
        if self.code >= 0:
            return f"exit code {self.code}"
        try:
            name = signal.Signals(-self.code).name
        except ValueError:
            name = "unknown"
        hint = ", as the kernel sends it where memory is short" if name == "SIGKILL" else ""
        return f"signal {-self.code}, {name}{hint}"


class WorkerReports:
    """Listens on a Unix socket in the server's private folder until ``close``."""

    def __init__(self, socket_path: Path) -> None:
        self._ends: list[WorkerEnd] = []
        self._server = _Server(str(socket_path), _Connection)
        self._server.ends = self._ends
        thread = threading.Thread(target=self._server.serve_forever, args=(POLL_SECONDS,), daemon=True)
        thread.start()

    @property
    def ends(self) -> tuple[WorkerEnd, ...]:
        """Every worker that has ended since the server was started, in order."""
        return tuple(self._ends)

    def close(self) -> None:
        """Stop listening; may be called twice."""
        self._server.shutdown()
        self._server.server_close()


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False
    ends: list[WorkerEnd]


class _Connection(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        born = self._message()
        ended = self._message()  # waits as long as the worker lives
        if "pid" in born:
            ended["lines"] = tuple(ended.get("lines", ()))
            self.server.ends.append(WorkerEnd(**{"code": None, "served": True, **born, **ended}))

    def _message(self) -> dict[str, Any]:
        message: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            message = json.loads(self.rfile.readline(LONGEST_REPORT))
        return message
