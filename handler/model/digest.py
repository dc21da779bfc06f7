"""SHA-256 digests of an unpacked archive, compared with the sums it was built with (MAR-INF/SHA256SUMS)."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SUMS = Path("MAR-INF", "SHA256SUMS")
CHUNK_BYTES = 1 << 20


class DigestError(ValueError):
    """A file is not the one the archive was built with; names it."""


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below ``folder`` by its relative path with forward slashes, sorted."""
    files = sorted(
        (path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file()
    )
    with ThreadPoolExecutor(max_workers=4) as pool:
        digests = pool.map(_file_digest, [path for _, path in files])
        return dict(zip([name for name, _ in files], digests))


def weights_digest(digests: dict[str, str]) -> str:
    """One SHA-256 over the sorted lines "sha256  path" of a model folder's files."""
    lines = sorted(f"{digest}  {name}\n" for name, digest in digests.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def archive_digest(root: Path) -> str | None:
    """The digest of the whole archive unpacked at ``root``; None where it carries no sums."""
    sums = root / SUMS
    return hashlib.sha256(sums.read_bytes()).hexdigest() if sums.is_file() else None


def check_digests(root: Path, folder: str, digests: dict[str, str]) -> None:
    """Compare a folder's digests with the archive's sums, where it has any; raises DigestError."""
    sums = root / SUMS
    if not sums.is_file():
        return
    expected = {}
    for line in sums.read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        if name.startswith(f"{folder}/"):
            expected[name[len(folder) + 1 :]] = digest
    for name in sorted(expected.keys() | digests.keys()):
        if name not in digests:
            raise DigestError(f"{folder}/{name} is listed in {SUMS} but missing from the archive")
        if name not in expected:
            raise DigestError(f"{folder}/{name} is in the archive but not listed in {SUMS}")
        if digests[name] != expected[name]:
            raise DigestError(f"{folder}/{name} has SHA-256 {digests[name]}; {SUMS} says {expected[name]}")


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
