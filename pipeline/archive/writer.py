"""Writes model.mar: a stored ZIP whose bytes depend on its content alone."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipeline.archive.digests import sums_size, sums_text
from pipeline.archive.layout import SUMS, Member, bytes_member
from pipeline.archive.replacing import EarlyFlush, replacing
from pipeline.archive.zip_records import stored_entry
from pipeline.errors import MarqueeError
from pipeline.progress import Progress

# Bytes of one entry's local header, central header and zip64 fields, without its name, which is in both.
ENTRY_OVERHEAD_BYTES = 30 + 46 + 48
END_OVERHEAD_BYTES = 128


def write_archive(target: Path, members: Sequence[Member], progress: Progress) -> dict[str, str]:
    """Write members and MAR-INF/SHA256SUMS, sorted by path; returns the hex SHA-256 of each by path.

    Sizes and CRCs stand in the local headers, since TorchServe reads the archive as a stream and Java
    cannot stream a stored entry without them. Raises MarqueeError where the disk is too small.
    """
    paths = [member.path for member in members]
    sums = bytes_member(SUMS, bytes(sums_size(paths)))
    ordered = sorted([*members, sums], key=lambda member: member.path)
    total = sum(member.size for member in ordered)
    overhead = sum(ENTRY_OVERHEAD_BYTES + 2 * len(member.path.encode()) for member in ordered)
    progress.start(f"writing {target.name}", total)
    try:
        with replacing(target, total + overhead + END_OVERHEAD_BYTES) as file:
            return _write(file, ordered, progress)
    finally:
        progress.finish()


def _write(file: BinaryIO, ordered: Sequence[Member], progress: Progress) -> dict[str, str]:
    digests: dict[str, str] = {}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive, ThreadPoolExecutor(3) as workers:
        copier = _Copier(file, workers, EarlyFlush(file, workers), progress)
        for member in ordered:
            if member.path == SUMS:
                archive.writestr(stored_entry(member.path, member.size), bytes(member.size))
                continue
            info, digests[member.path] = copier.copy(member)
            # zipfile's own writer takes the CRC in this thread, which makes it a third slower.
            archive.filelist.append(info)
            archive.start_dir = file.tell()
        _fill(file, archive.getinfo(SUMS), sums_text(digests))
    return digests


@dataclass(frozen=True)
class _Copier:
    """Appends members to a file while other threads compute their digests and flush to disk."""

    file: BinaryIO
    workers: ThreadPoolExecutor
    flush: EarlyFlush
    progress: Progress

    def copy(self, member: Member) -> tuple[zipfile.ZipInfo, str]:
        """The finished entry of one member and its hex SHA-256; two chunks are in memory at any time."""
        info = stored_entry(member.path, member.size)
        info.header_offset = self.file.tell()
        self.file.write(info.FileHeader())
        check = _Check()
        pending: list[Future[None]] = []
        written = 0
        for chunk in member.chunks():
            for update in pending:  # a digest takes its chunks in order
                update.result()
            pending = [self.workers.submit(update, chunk) for update in (check.add_sha256, check.add_crc)]
            self.file.write(chunk)
            written += len(chunk)
            self.flush.written(len(chunk))
            self.progress.advance(len(chunk))
        for update in pending:
            update.result()
        if written != member.size:
            raise MarqueeError(
                f"{member.path} changed while it was being packed: {written} of {member.size} bytes"
            )
        info.CRC = check.crc
        _overwrite(self.file, info.header_offset, info.FileHeader())
        return info, check.sha256.hexdigest()


class _Check:
    """The two checksums of one member."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()
        self.crc = 0

    def add_sha256(self, chunk: bytes) -> None:
        self.sha256.update(chunk)

    def add_crc(self, chunk: bytes) -> None:
        self.crc = zlib.crc32(chunk, self.crc)


def _fill(file: BinaryIO, info: zipfile.ZipInfo, content: bytes) -> None:
    """Write the sums in place of the zeros that reserved their space."""
    if len(content) != info.file_size:
        raise AssertionError(f"{info.filename} takes {len(content)} bytes, {info.file_size} were reserved")
    info.CRC = zlib.crc32(content)
    _overwrite(file, info.header_offset, info.FileHeader() + content)


def _overwrite(file: BinaryIO, offset: int, content: bytes) -> None:
    end = file.tell()
    file.seek(offset)
    file.write(content)
    file.seek(end)
