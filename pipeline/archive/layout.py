"""The paths inside model.mar, and its members."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MANIFEST = "MAR-INF/MANIFEST.json"
SUMS = "MAR-INF/SHA256SUMS"
CONTAINER_FILE = "MAR-INF/CONTAINER.json"  # only in an archive that was built for a container
HANDLER_FILE = "marquee_handler.py"
HANDLER_PACKAGE = "handler"
MODEL_FOLDER = "model"
CONFIG_FILE = "model-config.yaml"
PACKAGES_FOLDER = "packages"
LORAS_FOLDER = "loras"
COMPILED_FOLDER = "compiled"
COMPILED_UNET = "compiled/unet.pt2"
COMPILED_LIBRARY = "compiled/unet.so"  # the same for a CPU

# Formats that run code when they are loaded; only safetensors ship.
PICKLE_SUFFIXES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle")

COPY_BYTES = 1 << 20  # small enough to stay in the processor's cache from one checksum to the next


@dataclass(frozen=True)
class Member:
    """One file of an archive: its path there, its exact size in bytes, and its content, chunk by chunk."""

    path: str
    size: int
    chunks: Callable[[], Iterator[bytes]]


def bytes_member(path: str, content: bytes) -> Member:
    """A member that is already in memory."""
    return Member(path, len(content), lambda: iter((content,)))


def file_member(path: str, source: Path) -> Member:
    """A file packed as it is."""
    return Member(path, source.stat().st_size, lambda: read_blocks(source, 0, source.stat().st_size))


def read_blocks(path: Path, start: int, size: int) -> Iterator[bytes]:
    """``size`` bytes of a file from ``start``, a few megabytes at a time; fewer where the file is shorter."""
    with path.open("rb") as file:
        file.seek(start)
        while size > 0:
            block = file.read(min(COPY_BYTES, size))
            if not block:
                return
            size -= len(block)
            yield block
