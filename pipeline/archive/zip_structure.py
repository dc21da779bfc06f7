"""Checks a ZIP file's records, so that no bytes can hide between its members or behind them."""

from __future__ import annotations

import stat
import struct
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import BinaryIO

from pipeline.archive.layout import SUMS
from pipeline.archive.pickles import name_problem
from pipeline.archive.zip_records import (
    LOCAL_FIELDS,
    as_marquee_writes,
    difference,
    directory_problems,
    local_header,
)

LOCAL_LENGTHS = struct.Struct("<26xHH")
UNSAFE_FLAGS = 0x1 | 0x40 | 0x2000  # encrypted in one way or another


def structure_problems(
    file: BinaryIO, members: Sequence[zipfile.ZipInfo], directory_start: int
) -> Iterator[str]:
    """Every reason in the records not to unpack an archive of marquee's; each names the member."""
    yield from record_problems(file, members, directory_start)
    for member in members:
        shown = printable(member.orig_filename)
        if member.compress_type != zipfile.ZIP_STORED:
            yield f"{shown} is compressed; marquee stores its files as they are"
        elif member.compress_size != member.file_size:
            yield f"{shown} claims {member.file_size} bytes where {member.compress_size} are stored"
        if problem := name_problem(member.orig_filename):
            yield f"{shown} {printable(problem)}"


def record_problems(
    file: BinaryIO, members: Sequence[zipfile.ZipInfo], directory_start: int
) -> Iterator[str]:
    """Reasons not to unpack any archive: paths that leave the folder, duplicates, hidden bytes."""
    for name, count in sorted(Counter(member.filename for member in members).items()):
        if count > 1:
            yield f"{printable(name)} is in it {count} times"
    for member in members:
        yield from _member_problems(member)
    is_ours = any(member.filename == SUMS for member in members)
    yield from _order_problems(file, members, directory_start, is_ours=is_ours)


def printable(name: str) -> str:
    """A hostile name without its control characters, safe to show in a terminal."""
    return "".join(
        character
        if unicodedata.category(character)[0] not in "CZ" or character == " "
        else ascii(character)[1:-1]
        for character in name
    )


def _member_problems(member: zipfile.ZipInfo) -> Iterator[str]:
    # zipfile cuts a name at a NUL and changes its separators; orig_filename is the name in the file.
    name, shown = member.orig_filename, printable(member.orig_filename)
    if name.startswith("/") or "\\" in name or "\0" in name or name[1:2] == ":":
        yield f"{shown} is not a relative path with forward slashes"
    elif ".." in PurePosixPath(name).parts or str(PurePosixPath(name)) != name.removesuffix("/"):
        yield f"{shown} leaves the folder or is not a plain path"
    mode = member.external_attr >> 16
    if mode and not stat.S_ISREG(mode) and stat.S_IFMT(mode):
        yield f"{shown} is not a plain file (mode {mode:o})"
    if member.flag_bits & UNSAFE_FLAGS:
        yield f"{shown} is encrypted"


def _order_problems(
    file: BinaryIO, members: Sequence[zipfile.ZipInfo], directory_start: int, *, is_ours: bool
) -> Iterator[str]:
    """Members must follow each other without gap or overlap: TorchServe reads them as a stream.

    A reader of the stream would see the bytes in a gap and a reader of the directory would not; nor may the
    stream's headers say anything else than the directory does.
    """
    expected = [as_marquee_writes(member) if is_ours else member for member in members]
    end = 0
    for member in sorted(expected, key=lambda entry: entry.header_offset):
        shown = printable(member.filename)
        if member.header_offset != end:
            yield f"{abs(member.header_offset - end)} bytes before {shown} overlap or belong to no file"
        found = _read_header(file, member)
        header = local_header(member, found)
        if field := difference(found, header, LOCAL_FIELDS):
            yield f"{shown} has a header that does not fit its directory entry: its {field} is another"
            return
        end = member.header_offset + len(header) + member.compress_size
    if end != directory_start:
        yield f"{abs(directory_start - end)} bytes before the directory overlap or belong to no file"
    if is_ours:
        names = [printable(member.filename) for member in members]
        file.seek(directory_start)
        yield from directory_problems(names, file.read(), expected, directory_start)


def _read_header(file: BinaryIO, member: zipfile.ZipInfo) -> bytes:
    """The bytes where a local header should be, as many as it says it has."""
    file.seek(member.header_offset)
    raw = file.read(LOCAL_LENGTHS.size)
    return raw + file.read(sum(LOCAL_LENGTHS.unpack(raw))) if len(raw) == LOCAL_LENGTHS.size else raw
