"""Ends the replicas that a killed cloud left running; they are found by the cloud folder that they work in.

Whoever looks here holds that folder's lock, so its server is gone, whatever process has its id by now. The
replicas' socket folders are removed like those of every other server (serving/work_folder.py).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import psutil


def end_orphans(vertex: Path) -> None:
    """End the replicas that a killed cloud left behind: they work inside the folder's vertex part."""
    kill([process for process in psutil.process_iter() if _works_in(process, vertex)])


def kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, 10)


def _works_in(process: psutil.Process, folder: Path) -> bool:
    """A shell or an editor in that folder is somebody's own: only what TorchServe consists of counts."""
    try:
        place, words, name = Path(process.cwd()), process.cmdline(), process.name()
    except (psutil.Error, OSError):
        return False
    inside = place == folder or folder in place.parents or any(f"{folder}{os.sep}" in word for word in words)
    return inside and name.startswith(("java", "python")) and process.pid != os.getpid()
