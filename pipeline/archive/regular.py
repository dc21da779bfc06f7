"""Opens only regular files: reading a device may never end, and reading a pipe may wait for ever."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import MarqueeError

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe (FIFO)",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def special_kind(path: Path) -> str:
    """The kind of ``path`` or of its link's target; empty for a regular file and for an absent one.

    Raises MarqueeError where it cannot be looked at.
    """
    try:
        return _kind(path.stat().st_mode)
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def is_folder(path: Path) -> bool:
    """Whether ``path`` is a folder, or links to one; raises MarqueeError where it cannot be looked at."""
    return special_kind(path) == KINDS[stat.S_IFDIR]


def open_regular(path: Path, cure: str | None = None) -> BinaryIO:
    """Open a file for reading; raises MarqueeError at once where it is missing or no regular file.

    ``cure`` is the advice for a missing file. The kind is read from the open file, so that it cannot become
    another one in between.
    """
    if kind := special_kind(path):
        raise _special(path, kind)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise MarqueeError(f"{path} does not exist", cure) from error
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if kind := _kind(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _special(path, kind)
    return open(descriptor, "rb")


def read_regular(path: Path, most_bytes: int) -> bytes:
    """A regular file's whole content; raises MarqueeError where it has more than ``most_bytes``."""
    with open_regular(path) as file:
        try:
            content = file.read(most_bytes + 1)
        except OSError as error:
            raise _unreadable(path, error) from error
        size = os.fstat(file.fileno()).st_size
    if len(content) > most_bytes:
        raise MarqueeError(f"{path} has {size:,} bytes; at most {most_bytes:,} are read")
    return content


def _kind(mode: int) -> str:
    return "" if stat.S_ISREG(mode) else KINDS.get(stat.S_IFMT(mode), "no regular file")


def _special(path: Path, kind: str) -> MarqueeError:
    return MarqueeError(f"{path} is {kind}, not a file", "name a regular file")


def _unreadable(path: Path, error: OSError | ValueError) -> MarqueeError:
    return MarqueeError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}")
