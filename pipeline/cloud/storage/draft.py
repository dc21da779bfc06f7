"""Content of an upload while it arrives: written once, with its size and checksums."""

from __future__ import annotations

import base64
import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import google_crc32c

from pipeline.cloud.storage.errors import invalid

BLOCK = 1 << 20

# MD5 takes twice as long as everything else that happens to a block, so it runs beside the network.
MD5_WORKERS = ThreadPoolExecutor(2, "md5")


@dataclass(frozen=True)
class Checksums:
    """The sender's checksums of the whole content, in base64; None where it sent none."""

    crc32c: str | None = None
    md5: str | None = None

    def merge(self, other: Checksums) -> Checksums:
        return Checksums(self.crc32c or other.crc32c, self.md5 or other.md5)


class Draft:
    """A file that grows. An existing file is read again first: neither checksum can be kept on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._crc32c = 0
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._md5_pending: Future[None] | None = None
        self._file = open(path, "ab")  # noqa: SIM115 - closed by close()
        if self._file.tell():
            self._measure_again()

    def _measure_again(self) -> None:
        with open(self.path, "rb") as file:
            while block := file.read(BLOCK):
                self._measure(block)

    def _measure(self, block: bytes) -> None:
        self._crc32c = google_crc32c.extend(self._crc32c, block)
        self._settle_md5()
        self._md5_pending = MD5_WORKERS.submit(self._md5.update, block)
        self.size += len(block)

    def _settle_md5(self) -> None:
        if self._md5_pending is not None:
            self._md5_pending.result()

    def write(self, block: bytes) -> None:
        self._file.write(block)
        self._measure(block)

    def flush(self) -> None:
        self._file.flush()

    def truncate(self, size: int) -> Draft:
        """Forget what lies beyond ``size``; returns the draft to go on with."""
        self.close()
        with open(self.path, "r+b") as file:
            file.truncate(size)
        return Draft(self.path)

    def close(self) -> None:
        self._file.close()

    def discard(self) -> None:
        self.close()
        self.path.unlink(missing_ok=True)

    @property
    def crc32c(self) -> str:
        return base64.b64encode(self._crc32c.to_bytes(4, "big")).decode()

    @property
    def md5(self) -> str:
        self._settle_md5()
        return base64.b64encode(self._md5.digest()).decode()

    def verify(self, expected: Checksums) -> None:
        """Raise StorageError 400 when the content is not what its sender said."""
        pairs = ("CRC32C", expected.crc32c, self.crc32c), ("MD5 hash", expected.md5, self.md5)
        for kind, said, computed in pairs:
            if said is not None and said != computed:
                raise invalid(f'Provided {kind} "{said}" doesn\'t match calculated {kind} "{computed}".')
