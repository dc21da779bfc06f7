"""The digest of an archive, the digest of its weights, and the sums file that they are computed from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from pipeline.archive.layout import MODEL_FOLDER

DIGEST_CHARACTERS = 64


def sums_text(digests: Mapping[str, str]) -> bytes:
    """The sorted lines "sha256  path", as ``sha256sum -c`` reads them, from hex digests by path."""
    return "".join(sorted(f"{digest}  {path}\n" for path, digest in digests.items())).encode()


def sums_size(paths: Iterable[str]) -> int:
    """The length of ``sums_text`` in bytes, which is known before the digests are."""
    return sum(DIGEST_CHARACTERS + len("  \n") + len(path.encode()) for path in paths)


def parse_sums(text: str) -> dict[str, str]:
    """Hex digests by path; raises ValueError naming the first line that is not "sha256  path"."""
    digests: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        digest, separator, path = line.partition("  ")
        if not separator or not path or len(digest) != DIGEST_CHARACTERS or path in digests:
            raise ValueError(f"line {number} is not 'sha256  path' or repeats a path: {line[:100]!r}")
        digests[path] = digest
    return digests


def archive_digest(digests: Mapping[str, str]) -> str:
    """The SHA-256 of the sums file: it changes when any file of the archive does."""
    return hashlib.sha256(sums_text(digests)).hexdigest()


def weights_digest(digests: Mapping[str, str]) -> str:
    """The same over the model folder alone, with paths relative to it."""
    prefix = f"{MODEL_FOLDER}/"
    inside = {
        path.removeprefix(prefix): digest for path, digest in digests.items() if path.startswith(prefix)
    }
    return hashlib.sha256(sums_text(inside)).hexdigest()
