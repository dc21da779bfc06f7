"""Where things lie inside model.mar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MANIFEST = "MAR-INF/MANIFEST.json"
SUMS = "MAR-INF/SHA256SUMS"
HANDLER_FILE = "marquee_handler.py"
HANDLER_PACKAGE = "handler"
MODEL_FOLDER = "model"
CONFIG_FILE = "model-config.yaml"

# Formats that run code when they are loaded; only safetensors ship.
PICKLE_SUFFIXES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle")

COPY_BYTES = 4 << 20


@dataclass(frozen=True)
class Member:
    """One file of an archive: its path there, its exact size in bytes, and its content, chunk by chunk."""

    path: str
    size: int
    chunks: Callable[[], Iterator[bytes]]


def bytes_member(path: str, content: bytes) -> Member:
    """A member that is already in memory."""
    return Member(path, len(content), lambda: iter((content,)))
