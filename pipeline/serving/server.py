"""A running TorchServe: its addresses, the state of its workers, and its stop."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from pipeline.serving.drain import close_and_wait
from pipeline.serving.front import Front
from pipeline.serving.launch_files import management_address
from pipeline.serving.processes import end_processes
from pipeline.serving.settings import Ports, ServeOptions
from pipeline.serving.work_folder import WorkFolder
from pipeline.serving.worker_errors import log_tail
from pipeline.serving.worker_reports import WorkerEnd, WorkerReports
from pipeline.serving.worker_state import WorkerState, read_worker_state

# An address to listen on is not always one to call.
CALLABLE = {"0.0.0.0": "127.0.0.1"}


@dataclass(frozen=True)
class RunningServer:
    """``folder`` holds configuration and logs; ``drain_file``'s name is a secret shared with the handler.

    ``sockets`` holds its Unix sockets and goes with the server. ``own_folder`` is set where ``folder`` was
    made for this server and goes with it. ``front`` is set where the archive batches continuously: clients
    then talk to it, and it to TorchServe.
    """

    options: ServeOptions
    ports: Ports
    folder: Path
    drain_file: Path
    launcher: subprocess.Popen[bytes]
    reports: WorkerReports
    sockets: WorkFolder
    own_folder: WorkFolder | None = None
    front: Front | None = None

    @property
    def url(self) -> str:
        """Where predictions are asked: ``{url}/predictions/model`` or ``{url}/invocations``."""
        address = self.options.bind_address
        return f"http://{CALLABLE.get(address, address)}:{self.ports.inference}"

    @property
    def predict_url(self) -> str:
        """The address of the served model."""
        return f"{self.url}/predictions/{self.options.model_name}"

    @property
    def management_url(self) -> str:
        """Where TorchServe's management API is asked: ``unix:/PATH`` or a loopback address."""
        return management_address(self.ports, self.sockets.path)

    @property
    def metrics_url(self) -> str:
        """Where Prometheus metrics are read, always on loopback."""
        return f"http://127.0.0.1:{self.ports.metrics}/metrics"

    @property
    def logs(self) -> Path:
        """The folder with console.log, ts_log.log, errors.log and model_log.log."""
        return self.folder / "logs"

    @property
    def pid(self) -> int:
        """The launcher's process id, which is the id of the whole process group as well."""
        return self.launcher.pid

    def is_running(self) -> bool:
        """Whether TorchServe itself lives; its worker may still be dead or loading."""
        return self.launcher.poll() is None

    def worker_state(self) -> WorkerState:
        """The state of the workers, as TorchServe reports it now."""
        return read_worker_state(self.management_url, self.options.model_name)

    def worker_ends(self) -> tuple[WorkerEnd, ...]:
        """Every worker process that has ended since the start, in order."""
        return self.reports.ends

    def log_tail(self, lines: int = 40) -> str:
        """The last lines of each log."""
        return log_tail(self.logs, lines)

    def stop(self, drain_seconds: float = 0.0) -> bool:
        """End every process. With ``drain_seconds`` new requests get 503; running ones may take that long.

        Answers whether the drain ended in time (True when none was asked for). May be called twice.
        """
        drained = True
        if drain_seconds > 0 and self.is_running():
            drained = close_and_wait(self.predict_url, self.management_url, self.drain_file, drain_seconds)
        if self.front is not None:
            self.front.close()
        end_processes(self.launcher)
        self.reports.close()
        self.sockets.remove()
        if self.own_folder is not None:
            self.own_folder.remove()
        return drained
