"""Writes a file that appears complete or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import MarqueeError

RESERVE_BYTES = 16 << 20
FLUSH_BYTES = 64 << 20


class EarlyFlush:
    """Flushes a file to disk while it is still being written, so that the last fsync is short."""

    def __init__(self, file: BinaryIO, workers: Executor) -> None:
        self._file, self._workers = file, workers
        self._bytes = 0
        self._flushing: Future[None] | None = None

    def written(self, amount: int) -> None:
        """Count bytes written and start a flush when there are enough and none is under way."""
        self._bytes += amount
        if self._bytes >= FLUSH_BYTES and (self._flushing is None or self._flushing.done()):
            self._bytes = 0
            self._flushing = self._workers.submit(os.fdatasync, self._file.fileno())


@contextmanager
def replacing(target: Path, expected_bytes: int) -> Iterator[BinaryIO]:
    """Write beside ``target`` and rename at the end; on any exception nothing is left and the old file stays.

    The space is taken at once, so a full disk is one MarqueeError before the work. On Linux the file has no
    name until it is complete, so that not even ``kill -9`` leaves one behind.
    """
    folder = target.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file, name = _open_beside(target)
    except OSError as error:
        raise MarqueeError(f"{folder} cannot be written to: {error.strerror}") from error
    try:
        with file:
            _take_space(file, folder, expected_bytes)
            yield file
            file.truncate()
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
            if name is None:
                name = _name_file(file, target)
        os.replace(name, target)
    finally:
        if name is not None:
            with suppress(FileNotFoundError):
                name.unlink()
    _sync_folder(folder)


def _open_beside(target: Path) -> tuple[BinaryIO, Path | None]:
    """A nameless file where the file system has them, otherwise a hidden one and its path."""
    try:
        return open(os.open(target.parent, os.O_TMPFILE | os.O_RDWR, 0o600), "w+b"), None
    except (OSError, AttributeError):
        descriptor, path = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        return open(descriptor, "w+b"), Path(path)


def _take_space(file: BinaryIO, folder: Path, expected_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if expected_bytes + RESERVE_BYTES > free:
        raise MarqueeError(
            f"{folder} has {free / 1e9:.1f} GB free; the archive needs {expected_bytes / 1e9:.1f} GB",
            cure="free some space or choose another place with --out",
        )
    with suppress(OSError, AttributeError):  # reserving space only makes the write faster and safer
        os.posix_fallocate(file.fileno(), 0, expected_bytes)


def _name_file(file: BinaryIO, target: Path) -> Path:
    """Give the nameless file a hidden name next to the target (linkat refuses to replace a file)."""
    name = target.parent / f".{target.name}.{os.getpid()}"
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        # src_dir_fd only makes Python call linkat, which alone can follow this link.
        os.link(f"/proc/self/fd/{file.fileno()}", name, src_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)
    return name


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
