"""One TorchServe with one archive: ``with serve(mar) as server:``, or ``start`` and ``server.stop``."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.serving.environment import server_environment
from pipeline.serving.launch_files import write_launch_files
from pipeline.serving.ports import choose_ports
from pipeline.serving.preflight import check_archive, check_folder, check_machine
from pipeline.serving.processes import start_processes
from pipeline.serving.readiness import wait_until_ready
from pipeline.serving.server import RunningServer
from pipeline.serving.settings import ServeOptions


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
        launcher = start_processes(folder, server_environment(options, folder, drain_file), options.python)
    except BaseException:
        if options.work_folder is None:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return RunningServer(options, ports, folder, drain_file, launcher)


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
