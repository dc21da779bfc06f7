"""One TorchServe with one archive: ``with serve(mar) as server:`` or ``start`` and ``stop``."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.serving.drain import close_and_wait
from pipeline.serving.environment import server_environment
from pipeline.serving.launch_files import write_launch_files
from pipeline.serving.ports import choose_ports
from pipeline.serving.preflight import check_archive, check_folder, check_machine
from pipeline.serving.processes import end_processes, start_processes
from pipeline.serving.readiness import wait_until_ready
from pipeline.serving.settings import Ports, ServeOptions
from pipeline.serving.worker_errors import log_tail
from pipeline.serving.worker_state import WorkerState, read_worker_state

DRAIN_SECONDS = 60.0


@dataclass(frozen=True)
class RunningServer:
    """A TorchServe of ours. ``folder`` holds its configuration and logs; ``drain_file`` is its handler's secret."""

    options: ServeOptions
    ports: Ports
    folder: Path
    drain_file: Path
    launcher: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        """Where predictions are asked: ``{url}/predictions/model`` or ``{url}/invocations``."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(
            self.options.bind_address, self.options.bind_address
        )
        return f"http://{host}:{self.ports.inference}"

    @property
    def predict_url(self) -> str:
        """The address of the served model."""
        return f"{self.url}/predictions/{self.options.model_name}"

    @property
    def management_url(self) -> str:
        """Where TorchServe's own management API listens, always on loopback."""
        return f"http://127.0.0.1:{self.ports.management}"

    @property
    def metrics_url(self) -> str:
        """Where Prometheus metrics are read, always on loopback."""
        return f"http://127.0.0.1:{self.ports.metrics}/metrics"

    @property
    def pid(self) -> int:
        """The launcher's process id, which is the id of the whole process group as well."""
        return self.launcher.pid

    def is_running(self) -> bool:
        """Whether TorchServe itself lives; its worker may still be dead or loading."""
        return self.launcher.poll() is None

    def worker_state(self) -> WorkerState:
        """What TorchServe says of its workers now."""
        return read_worker_state(self.management_url, self.options.model_name)

    def log_tail(self, lines: int = 40) -> str:
        """The last lines of the worker's and of the server's own log."""
        return log_tail(self.folder / "logs", lines)

    def wait_until_ready(self) -> None:
        """Return once a picture (or, without warm-up, a READY worker) is there; MarqueeError with the worker's words."""
        wait_until_ready(self)

    def stop(self, drain_seconds: float = 0.0) -> bool:
        """End every process; with ``drain_seconds`` new requests get 503 and running ones may finish for so long.

        Answers whether the drain ended in time (True when none was asked for). May be called twice.
        """
        drained = close_and_wait(self, drain_seconds) if drain_seconds > 0 and self.is_running() else True
        end_processes(self.launcher)
        if self.options.work_folder is None:
            shutil.rmtree(self.folder, ignore_errors=True)
        return drained


def launch(mar: Path, options: ServeOptions | None = None) -> RunningServer:
    """Check everything that can be checked, then start the processes and return at once."""
    options = options or ServeOptions()
    archive = check_archive(mar)
    ports = choose_ports(options)
    folder = options.work_folder or Path(tempfile.mkdtemp(prefix="marquee-"))
    try:
        check_folder(folder, archive)
        check_machine(archive)
        write_launch_files(options, ports, mar, folder)
        drain_file = folder / f"drain-{secrets.token_hex(16)}"
        launcher = start_processes(folder, server_environment(options, folder, drain_file))
    except BaseException:
        if options.work_folder is None:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return RunningServer(options, ports, folder, drain_file, launcher)


def start(mar: Path, options: ServeOptions | None = None) -> RunningServer:
    """``launch`` and wait until it is ready; a server that does not become ready is stopped again."""
    server = launch(mar, options)
    try:
        server.wait_until_ready()
    except BaseException:
        server.stop()
        raise
    return server


@contextmanager
def serve(
    mar: Path, options: ServeOptions | None = None, drain_seconds: float = 0.0
) -> Iterator[RunningServer]:
    """A ready server for the length of a ``with`` block."""
    server = start(mar, options)
    try:
        yield server
    finally:
        server.stop(drain_seconds)
