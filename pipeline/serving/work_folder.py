"""Private folders of servers: made with an owner that the kernel knows, removed when the owner is gone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import MarqueeError

PREFIX = "marquee-"
# The process that made the folder holds a lock on this file as long as it lives. The kernel drops the lock
# with the process, so neither a reused process id nor another container's process ids can mislead.
OWNER = "owner.lock"


@dataclass(frozen=True)
class WorkFolder:
    """``lock``: the descriptor whose lock says that the folder's owner lives."""

    path: Path
    lock: int

    def remove(self) -> None:
        """Delete the folder and everything in it; may be called twice."""
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.close(self.lock)


def make_work_folder(place: Path | None = None) -> WorkFolder:
    """A new folder in ``place`` (None: the temporary folder), for this user alone (0700).

    Raises MarqueeError where nothing can be written there.
    """
    try:
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        unlocked = path / f"{OWNER}.new"
        lock = os.open(unlocked, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unlocked.rename(path / OWNER)  # only now does a sweep look at it, and finds it locked
    except OSError as error:
        raise MarqueeError(
            f"the server's work folder cannot be made: {error}",
            "free some room, or set TMPDIR to another folder",
        ) from error
    return WorkFolder(path, lock)


def sweep_work_folders(places: Iterable[Path] = ()) -> list[Path]:
    """Remove this user's work folders whose owner has ended; returns their paths.

    Looks in the temporary folder and in ``places``.
    """
    roots = dict.fromkeys([Path(tempfile.gettempdir()), *places])
    found = [folder for root in roots for folder in sorted(root.glob(f"{PREFIX}*"))]
    return [folder for folder in found if _is_own(folder) and _remove_if_orphaned(folder)]


def _is_own(folder: Path) -> bool:
    """A real folder of this user's: never a link, and nothing that another user has put there."""
    try:
        kind = folder.lstat()
        lock = (folder / OWNER).lstat()
    except OSError:
        return False
    mine = kind.st_uid == lock.st_uid == os.getuid()
    return mine and stat.S_ISDIR(kind.st_mode) and stat.S_ISREG(lock.st_mode)


def _remove_if_orphaned(folder: Path) -> bool:
    try:
        lock = os.open(folder / OWNER, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # its owner lives
        return False
    else:
        shutil.rmtree(folder, ignore_errors=True)
        return True
    finally:
        os.close(lock)
