"""One TorchServe with one archive: ``with serve(mar) as server:``, or ``start`` and ``server.stop``."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import MarqueeError
from pipeline.serving.environment import server_environment
from pipeline.serving.front import Front
from pipeline.serving.launch_files import CONTROL, INFERENCE_SOCKET, WORKER_SOCKET, write_launch_files
from pipeline.serving.ports import choose_ports
from pipeline.serving.preflight import check_archive, check_folder, check_machine
from pipeline.serving.processes import start_processes
from pipeline.serving.readiness import wait_until_ready
from pipeline.serving.server import RunningServer
from pipeline.serving.settings import Ports, ServeOptions
from pipeline.serving.work_folder import WorkFolder, make_work_folder, sweep_work_folders
from pipeline.serving.worker_reports import WorkerReports


def launch(mar: Path, options: ServeOptions | None = None) -> RunningServer:
    """Check everything that can be checked, then start the processes and return at once."""
    options = options or ServeOptions()
    archive = check_archive(mar)
    ports = choose_ports(options)
    sweep_work_folders()
    folder, own = _folder(options)
    try:
        check_folder(folder, archive)
        check_machine(archive)
        write_launch_files(options, ports, mar, folder, archive.continuous)
        front = _start_front(folder, options, ports) if archive.continuous else None
        try:
            return _start_in(folder, own, options, ports, front)
        except BaseException:
            if front is not None:
                front.close()
            raise
    except BaseException:
        if own is not None:
            own.remove()
        raise


def _folder(options: ServeOptions) -> tuple[Path, WorkFolder | None]:
    if options.work_folder is not None:
        return options.work_folder, None
    own = make_work_folder()
    return own.path, own


def _start_front(folder: Path, options: ServeOptions, ports: Ports) -> Front:
    upstream = str(folder / CONTROL / INFERENCE_SOCKET)
    front = Front(options.bind_address, ports.inference, upstream, options.max_request_bytes)
    try:
        front.start()
    except OSError as error:  # the port was free when it was chosen
        raise MarqueeError(
            f"port {ports.inference} on {options.bind_address} cannot be taken: {error.strerror or error}",
            "take another with --port, or 0 for any free one",
        ) from error
    return front


def _start_in(
    folder: Path, own: WorkFolder | None, options: ServeOptions, ports: Ports, front: Front | None
) -> RunningServer:
    drain_file = folder / f"drain-{secrets.token_hex(16)}"
    reports = WorkerReports(folder / CONTROL / WORKER_SOCKET)
    try:
        launcher = start_processes(folder, server_environment(options, folder, drain_file), options.python)
    except BaseException:
        reports.close()
        raise
    return RunningServer(options, ports, folder, drain_file, launcher, reports, own, front)


def start(mar: Path, options: ServeOptions | None = None) -> RunningServer:
    """``launch`` and wait until it is ready; a server that does not become ready is stopped again."""
    server = launch(mar, options)
    try:
        wait_until_ready(server)
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
