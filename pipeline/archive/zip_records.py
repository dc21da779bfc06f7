"""A ZIP file's records as bytes: those that zipfile writes for an entry, and where a file differs."""

from __future__ import annotations

import copy
import io
import stat
import struct
import zipfile
from collections.abc import Iterator, Sequence
from itertools import pairwise

# Where the fields of each record begin; the last one reaches to the record's end.
LOCAL_FIELDS = {
    0: "signature",
    4: "version",
    6: "flags",
    8: "method",
    10: "time",
    12: "date",
    14: "CRC",
    18: "stored size",
    22: "size",
    26: "name's length",
    28: "extra field's length",
    30: "name or extra field",
}
DIRECTORY_FIELDS = {
    0: "signature",
    4: "making system",
    6: "version",
    8: "flags",
    10: "method",
    12: "time",
    14: "date",
    16: "CRC",
    20: "stored size",
    24: "size",
    28: "name's length",
    30: "extra field's length",
    32: "comment's length",
    34: "disk",
    36: "text mark",
    38: "mode",
    42: "place",
    46: "name or extra field",
}
DIRECTORY_LENGTHS = struct.Struct("<28xHHH12x")
LOCAL_SIZES = struct.Struct("<18xII")
IN_ZIP64 = 0xFFFFFFFF  # the size stands in the extra field


def stored_entry(path: str, size: int) -> zipfile.ZipInfo:
    """The entry marquee writes for ``size`` bytes: stored, undated, a plain file of mode 0644."""
    info = zipfile.ZipInfo(path, date_time=(1980, 1, 1, 0, 0, 0))
    info.CRC = 0  # known when the bytes have gone by
    info.create_system = 3  # Unix, so that the mode below counts
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    info.file_size = info.compress_size = size
    return info


def as_marquee_writes(member: zipfile.ZipInfo) -> zipfile.ZipInfo:
    """An entry with the name, size, CRC and offset of ``member``; all other fields are marquee's."""
    info = stored_entry(member.filename, member.file_size)
    info.CRC, info.header_offset = member.CRC, member.header_offset
    return info


def local_header(member: zipfile.ZipInfo, found: bytes) -> bytes:
    """The header that fits a directory's entry; ``found`` decides only where large sizes stand."""
    info = copy.copy(member)
    info.extra = b""
    sizes = LOCAL_SIZES.unpack_from(found) if len(found) >= LOCAL_SIZES.size else ()
    is_large = max(info.file_size, info.compress_size) > zipfile.ZIP64_LIMIT
    return info.FileHeader(zip64=is_large or IN_ZIP64 in sizes)


def directory(entries: Sequence[zipfile.ZipInfo], start: int) -> bytes:
    """The directory and end record that zipfile writes for ``entries`` at byte ``start``."""
    file = _From(start)
    with zipfile.ZipFile(file, "w") as archive:
        archive.filelist.extend(entries)
    return file.getvalue()


def directory_problems(
    names: Sequence[str], found: bytes, entries: Sequence[zipfile.ZipInfo], start: int
) -> Iterator[str]:
    """Where the bytes from ``start`` on differ from what marquee writes there for ``entries``."""
    expected, at = directory(entries, start), 0
    for name in names:
        size = 46 + sum(DIRECTORY_LENGTHS.unpack_from(expected, at))
        if field := difference(found[at : at + size], expected[at : at + size], DIRECTORY_FIELDS):
            yield f"{name} has a directory entry that marquee does not write: its {field} is another"
        at += size
    if found[at:] != expected[at:]:
        yield "the directory does not end as marquee writes it"


def difference(found: bytes, expected: bytes, fields: dict[int, str]) -> str:
    """The name of the first field in which two records differ; empty where they are the same."""
    starts = [*fields, max(len(found), len(expected), *fields)]
    for begin, end in pairwise(starts):
        if found[begin:end] != expected[begin:end]:
            return fields[begin]
    return ""


class _From(io.BytesIO):
    """A file in memory whose first byte counts as byte ``start``."""

    def __init__(self, start: int) -> None:
        super().__init__()
        self._start = start

    def tell(self) -> int:
        return super().tell() + self._start

    def seek(self, offset: int, whence: int = 0) -> int:
        return super().seek(offset - self._start if whence == 0 else offset, whence) + self._start
