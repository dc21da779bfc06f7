"""Checks before TorchServe starts: the archive, the work folder, the disk and the memory."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.archive.model_config import CONTINUOUS_BATCHING
from pipeline.archive.plain_yaml import MAX_YAML_BYTES, NotPlain, read_mapping
from pipeline.archive.regular import special_kind
from pipeline.archive.zip_structure import printable
from pipeline.errors import MarqueeError
from pipeline.serving.environment import usable_cores
from pipeline.serving.memory import MEBIBYTE, available_memory

# TorchServe's Java takes about 350 MB under load, a worker with torch and diffusers imported about 420 MB.
SERVER_BYTES = 380 * MEBIBYTE
WORKER_BYTES = 420 * MEBIBYTE
# fp16 weights become fp32 on a CPU.
MEMORY_PER_WEIGHT_BYTE = 2
# Each is a copy of the model with threads of its own.
MOST_WORKERS = 16
SPARE_DISK_BYTES = 64 * MEBIBYTE


@dataclass(frozen=True)
class ArchiveFacts:
    """What the checks need to know of an archive: sizes of its unpacked files and its own, in bytes.

    ``workers``: how many processes TorchServe starts for it, each with the whole model. ``continuous``: it
    asks for continuousBatching.
    """

    path: Path
    unpacked_bytes: int
    weight_bytes: int
    archive_bytes: int = 0
    workers: int = 1
    continuous: bool = False


def check_archive(mar: Path) -> ArchiveFacts:
    """Measure the archive before its bytes are verified; raises MarqueeError where it is no model archive."""
    if kind := special_kind(mar):
        raise MarqueeError(f"{mar} is {kind}, not an archive", "name the archive's file")
    if not mar.exists():
        raise MarqueeError(f"there is no archive at {mar}", "build it: marquee build")
    try:
        with zipfile.ZipFile(mar) as archive:
            members = archive.infolist()
            if archive.getinfo("MAR-INF/MANIFEST.json").file_size > MEBIBYTE:
                raise ValueError("the manifest is too large")
            manifest = json.loads(archive.read("MAR-INF/MANIFEST.json"))
            settings = _settings(archive, manifest)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise MarqueeError(
            f"{mar} is not a readable archive: {error}", "build it again: marquee build"
        ) from error
    except (KeyError, ValueError, RecursionError) as error:
        raise MarqueeError(
            f"{mar} is a zip file, but no model archive: MAR-INF/MANIFEST.json is missing or broken",
            "build it with marquee build",
        ) from error
    _check_handler(mar, manifest, {member.filename for member in members})
    weights = sum(member.file_size for member in members if member.filename.endswith(".safetensors"))
    unpacked = sum(member.file_size for member in members)
    # Anything but false counts: the front that such an archive gets is right for every other as well.
    continuous = settings.get(CONTINUOUS_BATCHING) not in (None, False)
    workers = worker_count(settings, mar)
    return ArchiveFacts(mar, unpacked, weights, mar.stat().st_size, workers, continuous)


def _check_handler(mar: Path, manifest: object, names: set[str]) -> None:
    model = manifest.get("model") if isinstance(manifest, dict) else None
    handler = model.get("handler") if isinstance(model, dict) else None
    if not isinstance(handler, str):
        raise MarqueeError(f"{mar} names no handler in MAR-INF/MANIFEST.json", "build it with marquee build")
    module = handler.split(":")[0]
    if module.endswith(".py") and module not in names:
        raise MarqueeError(
            f"{mar} names the handler {printable(module[:100])}, which is not in it",
            "build it with marquee build",
        )


def _settings(archive: zipfile.ZipFile, manifest: object) -> dict[str, object]:
    """The keys for TorchServe in the archive's model-config.yaml; none where it has no such file."""
    model = manifest.get("model") if isinstance(manifest, dict) else None
    name = model.get("configFile") if isinstance(model, dict) else None
    if not isinstance(name, str) or name not in archive.namelist():
        return {}
    try:
        with archive.open(name) as file:
            return read_mapping(file.read(MAX_YAML_BYTES + 1))
    except NotPlain as error:
        raise MarqueeError(
            f"{archive.filename}: {printable(name)} cannot be read: {error}",
            "build it again: marquee build --config",
        ) from error


def worker_count(settings: Mapping[str, object], mar: Path, cores: int | None = None) -> int:
    """The worker processes that TorchServe will start (minWorkers, of which 1 is the usual value).

    Raises MarqueeError where it would start none, fewer than it says, or more than this machine can use;
    ``cores`` None: ask the machine.
    """
    most = max(MOST_WORKERS, 2 * (usable_cores() if cores is None else cores))
    least, limit = settings.get("minWorkers", 1), settings.get("maxWorkers")
    cure = (
        "set minWorkers and maxWorkers in model-config.yaml to 1, on GPUs to their number, and build it again"
    )
    for name, value in (("minWorkers", least), ("maxWorkers", limit if limit is not None else 1)):
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise MarqueeError(
                f"{mar} asks for {name}: {value!r}; a whole number from 1 to {most} works", cure
            )
    if isinstance(limit, int) and isinstance(least, int) and limit < least:
        raise MarqueeError(f"{mar} asks for minWorkers: {least} and maxWorkers: {limit}, which is less", cure)
    return int(str(least))


def check_folder(folder: Path, archive: ArchiveFacts) -> None:
    """The work folder can be written and has room for the unpacked archive."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        mounted = os.statvfs(folder).f_flag
    except OSError as error:
        raise MarqueeError(
            f"the work folder cannot be used: {error}", "name another, or set TMPDIR"
        ) from error
    if mounted & os.ST_NOEXEC:  # Java loads the library for its Unix sockets from there
        raise MarqueeError(
            f"nothing may be executed in the work folder {folder}: its disk is mounted noexec",
            "name another, or set TMPDIR to one on another disk",
        )
    needed = archive.archive_bytes + archive.unpacked_bytes + SPARE_DISK_BYTES
    if free < needed:
        raise MarqueeError(
            f"unpacking {archive.path} needs {_mebibytes(needed)} of disk, {folder} has {_mebibytes(free)}",
            "free some room, or point TMPDIR to a larger disk",
        )


def check_machine(archive: ArchiveFacts, available_bytes: int | None = None) -> None:
    """There is memory for server and weights; ``available_bytes`` (None: ask the machine) is what is free."""
    available = available_memory() if available_bytes is None else available_bytes
    worker = WORKER_BYTES + MEMORY_PER_WEIGHT_BYTE * archive.weight_bytes
    needed = SERVER_BYTES + archive.workers * worker
    if available < needed:
        more = f" for its {archive.workers} workers" if archive.workers > 1 else ""
        raise MarqueeError(
            f"serving {archive.path} needs about {_mebibytes(needed)} of memory{more}, "
            f"{_mebibytes(available)} are free",
            "end something else, or serve a smaller model"
            + (" or one with fewer minWorkers in its model-config.yaml" if more else ""),
        )


def _mebibytes(count: int) -> str:
    return f"{count / MEBIBYTE:,.0f} MiB"
