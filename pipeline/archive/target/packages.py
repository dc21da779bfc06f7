"""The packages that travel inside an archive, as members below packages/."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from pipeline.archive.layout import PACKAGES_FOLDER, Member, bytes_member
from pipeline.archive.target.targets import Target, Trim, lock_text, trim_rules
from pipeline.archive.target.wheels import fetch_wheels
from pipeline.errors import MarqueeError
from pipeline.progress import Progress


def package_members(target: Target, cache: Path, progress: Progress) -> list[Member]:
    """The trimmed content of the target's locked wheels; none where its container has the packages."""
    if target.lock is None:
        return []
    return wheel_members(fetch_wheels(target, lock_text(target), cache, progress))


def wheel_members(wheels: Sequence[Path]) -> list[Member]:
    """The files of some wheels that are packed; raises MarqueeError where two hold the same file."""
    rules = trim_rules()
    members: dict[str, Member] = {}
    for wheel in wheels:
        for name, content in _wheel_files(wheel, rules):
            if name in members:
                raise MarqueeError(f"{wheel.name} brings {name}, which another package brought already")
            members[name] = bytes_member(f"{PACKAGES_FOLDER}/{name}", content)
    return list(members.values())


def ships(name: str, rules: Trim) -> bool:
    """Whether a wheel's file is packed: no pattern drops it, or another pattern keeps it."""
    dropped = any(fnmatchcase(name, pattern) for pattern in rules.drop)
    return not dropped or any(fnmatchcase(name, pattern) for pattern in rules.keep)


def _wheel_files(wheel: Path, rules: Trim) -> Iterator[tuple[str, bytes]]:
    """A wheel is a ZIP whose paths below the root are those of site-packages, save for NAME.data/."""
    with zipfile.ZipFile(wheel) as archive:
        for info in archive.infolist():
            name = info.filename
            if info.is_dir() or ".data/" in name or not ships(name, rules):
                continue
            yield name, archive.read(info)
