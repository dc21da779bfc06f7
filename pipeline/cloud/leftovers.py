"""What a killed cloud leaves behind: replicas that still run, and the short links to their folders in /tmp.

Both are known by the cloud folder they belong to. Whoever looks here holds that folder's lock, so its
server is gone, whatever process has its id by now.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from pipeline.cloud.state import is_lock_held

# As vertex/torchserve_container.py makes them: /tmp/marquee-XXXXXXXX/r -> CLOUD/vertex/deployed/...
_PREFIX, _LINK = "marquee-", "r"
_INSIDE = ("vertex", "deployed")
_OLD_SECONDS = 600.0  # a replica that starts has its link before it has a process


def end_orphans(vertex: Path) -> None:
    """End the replicas that a killed cloud left behind: they work inside the folder's vertex part."""
    links = [link for link in _links() if _is_below(_target(link), vertex)]
    kill([process for process in psutil.process_iter() if _works_in(process, [vertex, *links])])


def sweep_links(cloud: Path) -> list[Path]:
    """Remove the links of the cloud in this folder, and of clouds that nobody serves; returns them.

    Call it with the lock of ``cloud`` held and its orphans ended.
    """
    swept = []
    for link in _links():
        owner = _cloud_of(_target(link))
        if owner is None:
            continue
        if owner == cloud or (_is_old(link) and not is_lock_held(owner / "lock") and not _is_used(link)):
            with contextlib.suppress(OSError):
                link.unlink()
                link.parent.rmdir()  # fails where something else lies beside it, which is not ours
                swept.append(link.parent)
    return swept


def kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, 10)


def _links() -> Iterator[Path]:
    """The links of any cloud of this user's, whether they lead anywhere or not."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        link = folder / _LINK
        with contextlib.suppress(OSError):
            if folder.lstat().st_uid == os.getuid() and not folder.is_symlink() and link.is_symlink():
                yield link


def _target(link: Path) -> Path:
    try:
        return Path(os.readlink(link))
    except OSError:
        return Path()


def _cloud_of(target: Path) -> Path | None:
    """The cloud folder that holds CLOUD/vertex/deployed/KEY/replica-N, or None when it is none."""
    parents = target.parents
    if len(parents) < 5 or (parents[2].name, parents[1].name) != _INSIDE or not target.is_absolute():
        return None
    return parents[3]


def _is_old(link: Path) -> bool:
    try:
        return time.time() - link.lstat().st_mtime > _OLD_SECONDS
    except OSError:
        return False


def _is_used(link: Path) -> bool:
    """Whether a process works by this link: a folder may be deleted under a server that still runs."""
    folder = str(link.parent) + os.sep
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if any(folder in word for word in [*process.cmdline(), *process.environ().values()]):
                return True
    return False


def _is_below(path: Path, folder: Path) -> bool:
    return path == folder or folder in path.parents


def _works_in(process: psutil.Process, folders: list[Path]) -> bool:
    """A shell or an editor in that folder is somebody's own: only what TorchServe consists of counts."""
    try:
        place, words, name = Path(process.cwd()), process.cmdline(), process.name()
    except (psutil.Error, OSError):
        return False
    inside = any(
        _is_below(place, folder) or any(f"{folder}{os.sep}" in word for word in words) for folder in folders
    )
    return inside and name.startswith(("java", "python")) and process.pid != os.getpid()
