"""One TorchServe with one archive: ``with serve(mar) as server:``, or ``start`` and ``server.stop``."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.serving.environment import server_environment
from pipeline.serving.launch_files import CONTROL, WORKER_SOCKET, write_launch_files
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
        write_launch_files(options, ports, mar, folder)
        return _start_in(folder, own, options, ports)
    except BaseException:
        if own is not None:
            own.remove()
        raise


def _folder(options: ServeOptions) -> tuple[Path, WorkFolder | None]:
    if options.work_folder is not None:
        return options.work_folder, None
    own = make_work_folder()
    return own.path, own


def _start_in(folder: Path, own: WorkFolder | None, options: ServeOptions, ports: Ports) -> RunningServer:
    drain_file = folder / f"drain-{secrets.token_hex(16)}"
    reports = WorkerReports(folder / CONTROL / WORKER_SOCKET)
    try:
        launcher = start_processes(folder, server_environment(options, folder, drain_file), options.python)
    except BaseException:
        reports.close()
        raise
    return RunningServer(options, ports, folder, drain_file, launcher, reports, own)


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
