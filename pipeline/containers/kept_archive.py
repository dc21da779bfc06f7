"""The embedded model's archive for a container: built again only when one of its inputs has changed."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pipeline.archive
from pipeline.archive import build as steps
from pipeline.archive.handler_source import find_handler
from pipeline.archive.layout import CONFIG_FILE
from pipeline.errors import MarqueeError
from pipeline.progress import Progress

KEPT_FOLDER = Path("build", "archives")
ANY_CONTAINER = "packages-installed"  # the folder of the archive that brings no packages
_RECORD = "built.json"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class _Record:
    """The last build: the digest of its inputs, its file with its SHA-256, and the file before that."""

    inputs: str
    file: str
    sha256: str
    before: str = ""


def archive_for(container: str | None, progress: Progress) -> Path:
    """The archive for a container target (None: the packages are installed where it runs).

    It lies in build/archives under a name made from its content: no archive of the user's is replaced,
    and the one before stays for a command that still reads it. Raises MarqueeError where it cannot be built.
    """
    root = steps.repository_root()
    folder = root / KEPT_FOLDER / (container or ANY_CONTAINER)
    with _alone(folder):
        inputs, record = _inputs(container, root), _read(folder / _RECORD)
        if record and record.inputs == inputs and _is_whole(folder, record):
            return folder / record.file
        progress.note(f"building the embedded model's archive for {container or 'installed packages'}")
        new = _build(container, root, folder, progress)
        before = record.file if record and record.file != new.name else ""
        if record and record.before not in ("", new.name, before):
            (folder / record.before).unlink(missing_ok=True)
        _write(folder / _RECORD, _Record(inputs, new.name, _sha256(new), before))
        return new


def _build(container: str | None, root: Path, folder: Path, progress: Progress) -> Path:
    made = folder / "model.mar.new"
    model = str(root / steps.EMBEDDED_MODEL)
    built = steps.build(steps.BuildConfig(model=model, out=made, container=container), progress)
    final = folder / f"model-{built.archive_digest[:16]}.mar"
    made.replace(final)
    return final


def _inputs(container: str | None, root: Path) -> str:
    """A digest of the archive's inputs: model, settings, handler, and the code that packs them."""
    model = root / steps.EMBEDDED_MODEL
    code = Path(pipeline.archive.__path__[0])
    digest = hashlib.sha256(f"{container}\n".encode())
    for place in (model, find_handler(), code):
        for path in sorted(place.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(place).as_posix()} {_sha256(path)}\n".encode())
    settings = model.parent / CONFIG_FILE
    digest.update(_sha256(settings).encode() if settings.is_file() else b"none")
    return digest.hexdigest()


def _is_whole(folder: Path, record: _Record) -> bool:
    file = folder / record.file
    return file.is_file() and _sha256(file) == record.sha256


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _read(path: Path) -> _Record | None:
    try:
        return _Record(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _write(path: Path, record: _Record) -> None:
    new = path.with_suffix(".new")
    new.write_text(json.dumps(vars(record)), encoding="utf-8")
    os.replace(new, path)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """A lock, so that one process builds at a time; one that waited then finds the archive ready."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise MarqueeError(
            f"the archive cannot be kept in {folder}: {error.strerror}",
            cure="make the folder writable, or marquee build --out PATH, and then --archive PATH",
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
