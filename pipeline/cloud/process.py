"""The local cloud as one process: run here until told to stop, or started detached and found again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from pipeline.cloud.leftovers import end_orphans, kill
from pipeline.cloud.options import CloudOptions
from pipeline.cloud.servers import running_servers
from pipeline.cloud.state import CloudFolder, Running
from pipeline.errors import MarqueeError
from pipeline.serving.socket_folder import socket_places
from pipeline.serving.work_folder import sweep_work_folders

START_SECONDS = 120.0
STOP_SECONDS = 60.0
LOG_LINES = 15
# What a cloud makes in its folder, besides its keys and ports.
MADE = (
    "storage/blobs",
    "storage/uploads",
    *(f"storage/index.sqlite3{end}" for end in ("", "-wal", "-shm")),
    "vertex/deployed",
    *(f"vertex/vertex.sqlite3{end}" for end in ("", "-wal", "-shm")),
    "faults.json",
    "cloud.log",
)


def serve(folder: CloudFolder, options: CloudOptions, ready: Callable[[Running], None]) -> None:
    """Run the cloud in this process until SIGTERM or SIGINT; call it from the main thread."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    os.umask(0o077)  # only the owner may read the cloud's files, wherever the folder lies
    folder.make()
    with folder.locked():
        clean(folder)
        with running_servers(folder, options) as running:
            folder.record(running)
            ready(running)
            stop.wait()
            folder.forget()


def start(folder: CloudFolder, options: CloudOptions) -> Running:
    """Start the cloud detached, unless it runs, and wait until it answers. Its output goes to the log."""
    running = folder.running()
    if running:
        return running
    folder.make()
    process, before = _launch(folder, options)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        running = folder.running()
        if running:
            # Another `up` may have been quicker; then its cloud is returned, and ours has ended.
            return running
        if process.poll() is not None and not folder.is_locked():
            why = why_it_ended(folder.log, before) or (
                f"exit code {process.returncode}, and nothing could be written to {folder.log}: "
                "is the disk full?"
            )
            raise MarqueeError(
                f"the local cloud ended as it started:\n{why}", cure="the sentence above; or another --state"
            )
        time.sleep(0.05)
    process.terminate()
    why = why_it_ended(folder.log, before)
    raise MarqueeError(f"the local cloud was not ready after {START_SECONDS:.0f} s:\n{why}")


def _launch(folder: CloudFolder, options: CloudOptions) -> tuple[subprocess.Popen[bytes], int]:
    """The server's process, and the length that its log had before."""
    command = [sys.executable, "-m", "pipeline", "cloud", "up", "--foreground", "--state", str(folder.path)]
    try:
        descriptor = os.open(folder.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with open(descriptor, "ab") as log:
            process = subprocess.Popen(
                [*command, *options.arguments()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            return process, log.tell()
    except OSError as error:
        raise folder.unusable(error) from None


def stop(folder: CloudFolder) -> bool:
    """Stop the cloud and all that it started; returns whether it ran."""
    running = folder.running()
    if running is not None:
        process = psutil.Process(running.pid)
        started = process.children(recursive=True)
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
        _, alive = psutil.wait_procs([process], STOP_SECONDS)
        # The server has had its time; end the processes that it has left.
        kill([*alive, *started])
        folder.forget()
    if folder.is_made() and not folder.is_locked():
        with folder.locked():
            clean(folder)
    return running is not None


def clean(folder: CloudFolder) -> None:
    """End and remove what a killed cloud left behind; call it with the folder locked."""
    end_orphans(folder.vertex)
    sweep_work_folders(socket_places())


def reset(folder: CloudFolder) -> bool:
    """Stop the cloud and delete everything but its keys and ports, which programs may still use.

    Removes what a cloud makes and nothing else; returns whether there was a cloud.
    """
    stop(folder)
    if not folder.is_made():
        return False
    with folder.locked():
        for name in MADE:
            path = folder.path / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    return True


def why_it_ended(log: Path, start: int) -> str:
    """The end of a server's log, from byte ``start``; only the error's sentence where it wrote one."""
    with contextlib.suppress(OSError), open(log, "rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").splitlines()
        told = [number for number, line in enumerate(lines) if line.startswith("error: ")]
        return "\n".join(lines[told[-1] :] if told else lines[-LOG_LINES:])
    return ""
