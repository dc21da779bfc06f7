"""What can be known to be wrong before TorchServe starts: the archive, the disk, the memory, the folder."""

from __future__ import annotations

import json
import shutil
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import MarqueeError
from pipeline.serving.memory import MEBIBYTE, available_memory

# TorchServe's Java takes about 350 MB under load, a worker with torch and diffusers imported about 420 MB.
SERVER_BYTES = 800 * MEBIBYTE
# fp16 weights become fp32 on a CPU.
MEMORY_PER_WEIGHT_BYTE = 2
SPARE_DISK_BYTES = 64 * MEBIBYTE
LONGEST_SOCKET_PATH = 107  # sun_path holds 108 bytes with the closing zero
SOCKET_NAME = "control/management.sock"  # the longest of the names in use


@dataclass(frozen=True)
class ArchiveFacts:
    """What the checks need to know of an archive; sizes are of the unpacked files, in bytes."""

    path: Path
    unpacked_bytes: int
    weight_bytes: int


def check_archive(mar: Path) -> ArchiveFacts:
    """Read the archive whole; raises MarqueeError where it is missing, damaged or no model archive."""
    if not mar.is_file():
        raise MarqueeError(f"there is no archive at {mar}", "build it: marquee build")
    try:
        with zipfile.ZipFile(mar) as archive:
            manifest = json.loads(archive.read("MAR-INF/MANIFEST.json"))
            members = archive.infolist()
            # Java stops unpacking at the first wrong checksum and serves nothing: better told here.
            damaged = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise MarqueeError(
            f"{mar} is not a readable archive: {error}", "build it again: marquee build"
        ) from error
    except (KeyError, ValueError) as error:
        raise MarqueeError(
            f"{mar} is a zip file, but no model archive: MAR-INF/MANIFEST.json is missing or broken",
            "build it with marquee build",
        ) from error
    if damaged is not None:
        raise MarqueeError(
            f"{mar} is damaged: {damaged} does not fit its checksum", "build it again: marquee build"
        )
    _check_handler(mar, manifest, {member.filename for member in members})
    weights = sum(member.file_size for member in members if member.filename.endswith(".safetensors"))
    return ArchiveFacts(mar, sum(member.file_size for member in members), weights)


def _check_handler(mar: Path, manifest: object, names: set[str]) -> None:
    model = manifest.get("model") if isinstance(manifest, dict) else None
    handler = model.get("handler") if isinstance(model, dict) else None
    if not isinstance(handler, str):
        raise MarqueeError(f"{mar} names no handler in MAR-INF/MANIFEST.json", "build it with marquee build")
    module = handler.split(":")[0]
    if module.endswith(".py") and module not in names:
        raise MarqueeError(
            f"{mar} names the handler {module}, which is not in it", "build it with marquee build"
        )


def check_folder(folder: Path, archive: ArchiveFacts) -> None:
    """The work folder can be written, has room for the unpacked archive and a short enough path."""
    if len(str(folder / SOCKET_NAME).encode()) > LONGEST_SOCKET_PATH:
        raise MarqueeError(
            f"the work folder's path is too long for a Unix socket: {folder}", "use a shorter one"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise MarqueeError(
            f"the work folder cannot be used: {error}", "name another, or set TMPDIR"
        ) from error
    needed = archive.unpacked_bytes + SPARE_DISK_BYTES
    if free < needed:
        raise MarqueeError(
            f"unpacking {archive.path} needs {_mebibytes(needed)} of disk, {folder} has {_mebibytes(free)}",
            "free some room, or point TMPDIR to a larger disk",
        )


def check_machine(archive: ArchiveFacts, available_bytes: int | None = None) -> None:
    """There is memory for server and weights; ``available_bytes`` (None: ask the machine) is what is free."""
    available = available_memory() if available_bytes is None else available_bytes
    needed = SERVER_BYTES + MEMORY_PER_WEIGHT_BYTE * archive.weight_bytes
    if available < needed:
        raise MarqueeError(
            f"serving {archive.path} needs about {_mebibytes(needed)} of memory, "
            f"{_mebibytes(available)} are free",
            "end something else, or serve a smaller model",
        )


def _mebibytes(count: int) -> str:
    return f"{count / MEBIBYTE:,.0f} MiB"
