"""Writes model.mar: a stored ZIP whose bytes depend on its content alone."""

from __future__ import annotations

import hashlib
import stat
import zipfile
import zlib
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from pipeline.archive.digests import sums_size, sums_text
from pipeline.archive.layout import SUMS, Member, bytes_member
from pipeline.archive.replacing import replacing
from pipeline.errors import MarqueeError
from pipeline.progress import Progress

CHUNKS_IN_FLIGHT = 4
# Local header, central header and zip64 fields of one entry, without its name, which stands in both.
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
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive, ThreadPoolExecutor(1) as hasher:
        for member in ordered:
            digests[member.path] = _copy(archive, member, hasher, progress)
        del digests[SUMS]
        _fill(file, archive.getinfo(SUMS), sums_text(digests))
    return digests


def _copy(archive: zipfile.ZipFile, member: Member, hasher: ThreadPoolExecutor, progress: Progress) -> str:
    """Copy one member while a second thread hashes it; a few chunks are in memory at any time."""
    sha256 = hashlib.sha256()
    pending: deque[Future[None]] = deque()
    written = 0
    with archive.open(_entry(member), "w") as entry:
        for chunk in member.chunks():
            pending.append(hasher.submit(sha256.update, chunk))
            entry.write(chunk)
            written += len(chunk)
            progress.advance(len(chunk))
            if len(pending) > CHUNKS_IN_FLIGHT:
                pending.popleft().result()
        for update in pending:
            update.result()
    if written != member.size:
        raise MarqueeError(
            f"{member.path} changed while it was being packed: {written} of {member.size} bytes"
        )
    return sha256.hexdigest()


def _entry(member: Member) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(member.path, date_time=(1980, 1, 1, 0, 0, 0))
    info.create_system = 3  # Unix, so that the mode below counts
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    info.file_size = member.size
    return info


def _fill(file: BinaryIO, info: zipfile.ZipInfo, content: bytes) -> None:
    """Write the sums over the zeros that kept their place; the size was exact."""
    if len(content) != info.file_size:
        raise AssertionError(f"{info.filename} takes {len(content)} bytes, {info.file_size} were kept")
    info.CRC = zlib.crc32(content)
    end = file.tell()
    file.seek(info.header_offset)
    file.write(info.FileHeader(zip64=False) + content)
    file.seek(end)
