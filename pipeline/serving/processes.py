"""TorchServe's processes (launcher, Java, and two for each worker) in one session of their own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.serving.launch_files import CONTROL, WORKER_PROGRAM

if TYPE_CHECKING:
    import psutil

STOP_SECONDS = 15.0


def start_processes(
    folder: Path, environment: Mapping[str, str], python: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start the launcher in ``folder`` as leader of a new session; its output goes to logs/console.log.

    Another ``python`` than this one does not have this package, so it gets a copy of the launcher.
    """
    command = [sys.executable, "-m", "pipeline.serving.launcher"]
    if python is not None:
        copy = shutil.copy(Path(__file__).with_name("launcher.py"), folder / "temp")
        command = [str(python), str(copy)]
    command += [str(folder / CONTROL / WORKER_PROGRAM), "--start", "--foreground"]
    command += ["--no-config-snapshots", "--ts-config", str(folder / "config.properties")]
    command += ["--log-config", str(folder / "log4j2.xml")]
    with (folder / "logs" / "console.log").open("ab") as console:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.PIPE,  # held open: see launcher
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def end_processes(launcher: subprocess.Popen[bytes]) -> None:
    """End the whole process group, politely first; returns when every process of it is gone."""
    members = _members(launcher.pid)
    for member in members:
        _signal(member, signal.SIGTERM)
    _wait(launcher, members, STOP_SECONDS)
    for member in members + _members(launcher.pid):
        _signal(member, signal.SIGKILL)
    _wait(launcher, members, STOP_SECONDS)
    if launcher.stdin is not None:
        launcher.stdin.close()
    launcher.wait()


def _members(group: int) -> list[psutil.Process]:
    import psutil

    members = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return members


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    import psutil

    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _wait(launcher: subprocess.Popen[bytes], members: list[psutil.Process], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while any(map(_lives, members)) and time.monotonic() < deadline:
        launcher.poll()
        time.sleep(0.05)


def _lives(process: psutil.Process) -> bool:
    import psutil

    # A dead worker stays a zombie for ever where the container's process 1 collects no children.
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
