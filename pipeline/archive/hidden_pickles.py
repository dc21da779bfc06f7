"""Finds pickles by their opcodes, also behind other bytes; nothing is loaded."""

from __future__ import annotations

import io
import pickletools
import re
import string
import struct
from collections.abc import Iterator
from dataclasses import dataclass

MARKED = re.compile(rb"\x80[\x02-\x05]")  # how protocols 2 to 5 begin
# GLOBAL and INST are a letter and a module's name on one line, and a name in that module on the next.
TAKEN = re.compile(rb"\n(?=[A-Za-z_][\w.]*\n)")
# The argument of GLOBAL and INST in pickletools: a module and a name in it.
IMPORTABLE = re.compile(r"[^\W\d][\w.]* [^\W\d][\w.]*")
NAMING = frozenset({"GLOBAL", "INST"})
MODULE_BYTES = f"{string.ascii_letters}{string.digits}_.".encode()
LETTER = re.compile(rb"[ci](?=[A-Za-z_])")
LONGEST_MODULE = 4096
# Opcodes that make a load call a function; the first two only look the function up.
CALLING = frozenset({"INST", "REDUCE", "BUILD", "OBJ", "NEWOBJ", "NEWOBJ_EX"})
REACHING = CALLING | {"GLOBAL", "STACK_GLOBAL"}
# Python's pickler memoises every name that it looked up, and text hardly looks like that by chance.
NOTING = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})
# Bounds the search on a hostile file; a file that needs more work than this is reported.
MOST_WORK = 16 << 20
WORK_PER_OPCODE = 64
MARKS_BEFORE_INST = 64


def reads_as_pickle(content: bytes) -> bool:
    """Whether a pickle begins at the first byte; other bytes may follow it."""
    found = _read(content, 0)
    return found.ends and (bool(REACHING & set(found.names)) or _is_sound(content, 0))


def hides_pickle(content: bytes) -> bool:
    """Whether a pickle begins anywhere in ``content``; a program may seek to it before it loads."""
    work = 0
    for start, wanted in _starts(content):
        found = _read(content, start)
        work += found.work
        if work > MOST_WORK:
            return True
        if not found.ends:
            continue
        if wanted & set(found.names[1:]):
            return True
        if content[found.end :].strip() == b"" and _is_sound(content, start):
            return True
    return False


def _starts(content: bytes) -> Iterator[tuple[int, frozenset[str]]]:
    """Where a pickle may begin, and the opcodes of which one must follow to tell it from text.

    Without any it counts only where it is sound and the file ends with it.
    """
    if content.rstrip().endswith(b"."):  # protocols 0 and 1 have no mark, but end with a full stop
        for blank in re.finditer(rb"^[ \t\r]*", content, re.MULTILINE):
            yield blank.end(), frozenset()
    for marked in MARKED.finditer(content):
        yield marked.start(), REACHING
    for taken in TAKEN.finditer(content):
        line = max(0, taken.start() - LONGEST_MODULE)
        before = content[line : taken.start()]
        for letter in LETTER.finditer(before, len(before.rstrip(MODULE_BYTES))):
            start = line + letter.start()
            if letter[0] == b"c":
                yield start, CALLING | NOTING
            else:  # INST calls with what stands after a MARK before it
                yield from ((place, frozenset({"INST"})) for place in _marks_before(content, start))


def _marks_before(content: bytes, end: int) -> Iterator[int]:
    for _ in range(MARKS_BEFORE_INST):
        if (end := content.rfind(b"(", 0, end)) < 0:
            return
        yield end


@dataclass(frozen=True)
class _Read:
    """The opcodes from one place on; ``ends`` tells whether STOP came, just before ``end``."""

    names: tuple[str, ...]
    ends: bool
    end: int
    work: int


def _read(content: bytes, start: int) -> _Read:
    reader = io.BytesIO(content)  # shares the bytes
    reader.seek(start)
    names: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(reader):
            names.append(_name(opcode.name, argument))
            if len(names) * WORK_PER_OPCODE > MOST_WORK:
                break
    except (ValueError, OverflowError, MemoryError, struct.error):
        pass
    end = reader.tell()
    return _Read(tuple(names), names[-1:] == ["STOP"], end, len(names) * WORK_PER_OPCODE + end - start)


def _name(opcode: str, argument: object) -> str:
    """The opcode's name; of one that takes words of plain text for a module, a name of its own."""
    if opcode in NAMING and not IMPORTABLE.fullmatch(str(argument)):
        return f"{opcode} of text"
    return opcode


def _is_sound(content: bytes, start: int) -> bool:
    """Whether the opcodes find on the stack what they need: text that reads as opcodes by chance does not."""
    reader = io.BytesIO(content)
    reader.seek(start)
    try:
        pickletools.dis(reader, out=io.StringIO())
    except (ValueError, OverflowError, MemoryError, struct.error, IndexError):
        return False
    return True
