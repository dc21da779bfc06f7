"""The facts about model.mar that deploying needs: its size, checksum, digests and settings."""

from __future__ import annotations

import base64
import json
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.archive.layout import MANIFEST
from pipeline.archive.verification import verify_archive

_CHUNK = 1 << 20


@dataclass(frozen=True)
class ArchiveFile:
    """An archive on disk, the digests of its content (SHA-256 in hex), its manifest and model-config.yaml."""

    path: Path
    archive_digest: str
    weights_digest: str
    manifest: dict[str, Any]
    settings: dict[str, Any]

    @property
    def defaults(self) -> dict[str, Any]:
        """The values for fields that a request leaves out: width and height in pixels, steps, format."""
        return self._own("defaults")

    @property
    def limits(self) -> dict[str, Any]:
        """The largest values that the archive accepts in a request."""
        return self._own("limits")

    def _own(self, section: str) -> dict[str, Any]:
        return dict((self.settings.get("marquee") or {}).get(section) or {})

    @cached_property
    def size(self) -> int:
        return self.path.stat().st_size

    @cached_property
    def crc32c(self) -> str:
        """The checksum in Cloud Storage's form: base64 of the big-endian value."""
        import google_crc32c

        checksum: Any = google_crc32c.Checksum()  # type: ignore[no-untyped-call]
        with open(self.path, "rb") as file:
            while chunk := file.read(_CHUNK):
                checksum.update(chunk)
        return base64.b64encode(checksum.digest()).decode()


def read_archive(path: Path) -> ArchiveFile:
    """Raises MarqueeError when the file is missing or is not, byte for byte, what `marquee build` made."""
    found = verify_archive(path)
    with zipfile.ZipFile(path) as mar:
        manifest = json.loads(mar.read(MANIFEST))
    return ArchiveFile(path, found.archive_digest, found.weights_digest, manifest, dict(found.settings))
