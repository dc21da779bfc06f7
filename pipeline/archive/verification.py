"""Verifies an archive before it runs, with the checks of `marquee inspect`."""

from __future__ import annotations

import fcntl
import shutil
import zipfile
from pathlib import Path
from typing import BinaryIO

from pipeline.archive.inspection import Inspection, inspect_archive
from pipeline.archive.layout import COPY_BYTES, HANDLER_FILE, HANDLER_PACKAGE, MANIFEST, SUMS
from pipeline.archive.manifest import foreign_manifest_problems
from pipeline.archive.regular import open_regular
from pipeline.archive.texts import Texts
from pipeline.archive.zip_structure import printable, record_problems
from pipeline.errors import MarqueeError
from pipeline.progress import Progress, Silent

FICLONE = 0x40049409  # linux/fs.h: the copy shares the blocks on file systems that can (Btrfs, XFS)
SHOWN_PROBLEMS = 10


class RefusedArchive(MarqueeError):
    """An archive was changed after its build or holds code that must not run; lists every reason."""

    def __init__(self, path: Path, problems: tuple[str, ...]) -> None:
        shown = [f"\n  - {problem}" for problem in problems[:SHOWN_PROBLEMS]]
        more = len(problems) - len(shown)
        super().__init__(
            f"{path} is refused, and nothing of it was run:{''.join(shown)}"
            + (f"\n  - and {more} more" if more else ""),
            cure=f"build or download it again; marquee inspect {path} shows all of it",
        )


def verify_archive(path: Path, progress: Progress | None = None) -> Inspection:
    """The content of a valid archive; raises RefusedArchive, or MarqueeError where it is not an archive.

    To run the archive use ``verified_copy``, because this file may change after the check.
    """
    found = inspect_archive(path, progress or Silent())
    if found.problems:
        raise RefusedArchive(path, found.problems)
    return found


def verified_copy(source: Path, target: Path, *, foreign: bool = False) -> None:
    """Copy the archive to ``target``, where no other user can write, and verify that copy: it may then run.

    ``foreign`` also takes an archive that marquee did not build, without sums and without any file of
    marquee's: its records are checked, its content cannot be. Raises RefusedArchive or MarqueeError, and then
    leaves no copy.
    """
    try:
        with open_regular(source, "marquee build makes it") as file:
            _copy(file, target)
        if foreign and _is_foreign(target):
            problems = tuple(_foreign_problems(target))
        else:
            problems = inspect_archive(target, Silent(), name=source).problems
        if problems:
            raise RefusedArchive(source, problems)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _copy(file: BinaryIO, target: Path) -> None:
    try:
        with open(target, "xb") as copy:
            target.chmod(0o600)
            try:
                fcntl.ioctl(copy.fileno(), FICLONE, file.fileno())
            except OSError:
                shutil.copyfileobj(file, copy, COPY_BYTES)
    except OSError as error:
        raise MarqueeError(f"the archive cannot be copied to {target}: {error.strerror or error}") from error


def _is_foreign(path: Path) -> bool:
    """Whether nothing in it shows that marquee built it; False for a file that is not a ZIP file."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, OSError):
        return False
    ours = (SUMS, HANDLER_FILE)
    return not any(name in ours or name.startswith(f"{HANDLER_PACKAGE}/") for name in names)


def _foreign_problems(path: Path) -> list[str]:
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        problems = list(record_problems(file, members, archive.start_dir))
        if problems:
            return problems
        if damaged := archive.testzip():
            return [f"{printable(damaged)} is damaged: its CRC does not match"]
        names = {member.filename for member in members}
        manifest = Texts(archive, names, problems).json(MANIFEST)
        return problems + list(foreign_manifest_problems(manifest, names))
