"""Files of pictures that a request sends, or that a picture drawn again is compared with."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pipeline.errors import MarqueeError

MOST_BYTES = 12 << 20
"""As base64 this fills 16,777,216 bytes, the largest request that `marquee serve` lets through."""


@dataclass(frozen=True)
class SourceFile:
    """A png, jpeg or webp file; ``data`` are its bytes as they are on the disk."""

    path: Path
    data: bytes = field(repr=False)

    @property
    def base64(self) -> str:
        return base64.b64encode(self.data).decode("ascii")

    @cached_property
    def sha256(self) -> str:
        """The hex digest that a receipt holds of a picture that came in."""
        return hashlib.sha256(self.data).hexdigest()


def read_source(option: str, path: Path) -> SourceFile:
    """The picture that ``option`` names.

    Raises MarqueeError where it cannot be read, has more than ``MOST_BYTES`` or is no png, jpeg or webp.
    """
    named = f"{option} {path}"
    cure = "name a png, jpeg or webp file"
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise MarqueeError(f"{named} is no file", cure)
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except ValueError as error:  # a NUL in the name
        raise MarqueeError(f"{named} cannot be read: {error}", cure) from error
    except OSError as error:
        raise MarqueeError(f"{named} cannot be read: {error.strerror}", cure) from error
    if len(data) > MOST_BYTES:
        raise MarqueeError(
            f"{named} has more than {MOST_BYTES:,} bytes", "make the picture smaller, or save it as jpeg"
        )
    if picture_format(data) is None:
        begins = f"it begins {data[:12]!r}" if data else "it is empty"
        raise MarqueeError(f"{named} is no png, jpeg or webp picture: {begins}", f"convert it, or {cure}")
    return SourceFile(path, data)


def picture_format(data: bytes) -> str | None:
    """png, jpeg or webp by a file's first bytes, else None."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    return "webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None
