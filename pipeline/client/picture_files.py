"""Pictures become files: all of them whole, or none."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


def save_pictures(pictures: Sequence[tuple[Path, bytes]]) -> None:
    """Write each picture beside its place and rename all of them at the end.

    Where something fails no file has changed, and nothing new is left. A device or pipe, or a file in a
    folder that takes no new ones, is written to directly. Raises OSError.
    """
    staged: list[tuple[Path, Path]] = []
    try:
        for path, data in pictures:
            target = path.resolve()
            if _is_replaceable(target):
                beside = target.with_name(f".{secrets.token_hex(8)}.part")
                staged.append((beside, target))
                _write_new(beside, data, target)
        for path, data in pictures:
            if not _is_replaceable(path.resolve()):
                path.write_bytes(data)
        for beside, target in staged:
            beside.replace(target)
    finally:
        for beside, _ in staged:
            with suppress(OSError):
                beside.unlink()


def _is_replaceable(target: Path) -> bool:
    return not target.exists() or (target.is_file() and os.access(target.parent, os.W_OK))


def _write_new(path: Path, data: bytes, like: Path) -> None:
    """A new file with the permissions of the one that it replaces, else those of any new file."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
        if like.exists():
            os.fchmod(file.fileno(), like.stat().st_mode & 0o777)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
