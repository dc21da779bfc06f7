"""One TorchServe with one archive: ``with serve(mar) as server:``, or ``start`` and ``server.stop``."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pipeline.errors import MarqueeError
from pipeline.serving.environment import server_environment
from pipeline.serving.front import Front
from pipeline.serving.launch_files import write_launch_files
from pipeline.serving.ports import choose_ports
from pipeline.serving.preflight import check_archive, check_folder, check_machine
from pipeline.serving.processes import start_processes
from pipeline.serving.readiness import wait_until_ready
from pipeline.serving.server import RunningServer
from pipeline.serving.settings import Ports, ServeOptions
from pipeline.serving.socket_folder import (
    INFERENCE_SOCKET,
    TEMPORARY,
    WORKER_SOCKET,
    make_socket_folder,
    socket_places,
)
from pipeline.serving.work_folder import make_work_folder, sweep_work_folders
from pipeline.serving.worker_reports import WorkerReports


def launch(mar: Path, options: ServeOptions | None = None) -> RunningServer:
    """Check everything that can be checked, then start the processes and return at once."""
    options = options or ServeOptions()
    archive = check_archive(mar)
    ports = choose_ports(options)
    sweep_work_folders(socket_places())
    with ExitStack() as undo:
        own, folder = None, options.work_folder
        if folder is None:
            own = make_work_folder()
            undo.callback(own.remove)
            folder = own.path
        check_folder(folder, archive)
        check_machine(archive)
        sockets = make_socket_folder(folder / TEMPORARY)
        undo.callback(sockets.remove)
        write_launch_files(options, ports, mar, folder, sockets.path, archive.continuous)
        front = _start_front(sockets.path, options, ports) if archive.continuous else None
        if front is not None:
            undo.callback(front.close)
        drain_file = folder / f"drain-{secrets.token_hex(16)}"
        reports = WorkerReports(sockets.path / WORKER_SOCKET)
        undo.callback(reports.close)
        environment = server_environment(options, folder, sockets.path / TEMPORARY, drain_file)
        launcher = start_processes(folder, environment, options.python)
        undo.pop_all()  # from here on the server's stop ends and removes all of it
    return RunningServer(options, ports, folder, drain_file, launcher, reports, sockets, own, front)


def _start_front(sockets: Path, options: ServeOptions, ports: Ports) -> Front:
    upstream = str(sockets / INFERENCE_SOCKET)
    front = Front(options.bind_address, ports.inference, upstream, options.max_request_bytes)
    try:
        front.start()
    except OSError as error:  # the port was free when it was chosen
        raise MarqueeError(
            f"port {ports.inference} on {options.bind_address} cannot be taken: {error.strerror or error}",
            "take another with --port, or 0 for any free one",
        ) from error
    return front


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
