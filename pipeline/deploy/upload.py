"""Uploads model.mar to Cloud Storage once, and never over another object."""

from __future__ import annotations

import contextlib
from typing import IO, TYPE_CHECKING, Any

from pipeline.deploy.archive_file import ArchiveFile
from pipeline.deploy.connection import Connection
from pipeline.deploy.labels import ARCHIVE_MARK, MANAGED
from pipeline.errors import MarqueeError
from pipeline.progress import Progress

if TYPE_CHECKING:
    from google.cloud.storage import Blob

_CHUNK = 8 << 20  # bytes per request of a resumable upload; a multiple of 256 KiB


def send_archive(connection: Connection, archive: ArchiveFile, uri: str, progress: Progress) -> int:
    """Upload to ``uri`` (gs://BUCKET/NAME) unless an object exists there. Returns the number of bytes sent.

    Raises MarqueeError when the object holds other bytes than the archive afterwards.
    """
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    blob = connection.storage.bucket(bucket).blob(name, chunk_size=_CHUNK)
    sent = _send(blob, archive, progress)
    blob.reload()
    _compare(blob, archive)
    return sent


def create_bucket(connection: Connection, name: str) -> None:
    """Create a bucket in the connection's region, labelled as ours."""
    from google.api_core.exceptions import Conflict

    bucket = connection.storage.bucket(name)
    bucket.iam_configuration.uniform_bucket_level_access_enabled = True
    bucket.labels = MANAGED
    with contextlib.suppress(Conflict):  # another run made it just now
        connection.storage.create_bucket(bucket, location=connection.region)


def delete_archive(connection: Connection, uri: str, generation: int) -> None:
    """Delete this generation of the object; no error if it no longer exists."""
    from google.api_core.exceptions import NotFound

    bucket, _, name = uri.removeprefix("gs://").partition("/")
    with contextlib.suppress(NotFound):
        connection.storage.bucket(bucket).blob(name).delete(if_generation_match=generation)


def delete_bucket(connection: Connection, name: str) -> None:
    from google.api_core.exceptions import NotFound

    with contextlib.suppress(NotFound):
        connection.storage.bucket(name).delete()


def _send(blob: Blob, archive: ArchiveFile, progress: Progress) -> int:
    from google.api_core.exceptions import PreconditionFailed

    blob.metadata = {ARCHIVE_MARK: archive.archive_digest}
    progress.start(f"uploading {archive.path.name}", archive.size)
    try:
        with open(archive.path, "rb") as file:
            # Generation 0: only if no object exists. It also lets the client retry a broken upload.
            blob.upload_from_file(
                _Watched(file, progress), size=archive.size, if_generation_match=0, checksum="crc32c"
            )
    except PreconditionFailed:
        progress.note("another run uploaded the archive in the meantime")
        return 0
    finally:
        progress.finish()
    return archive.size


def _compare(blob: Blob, archive: ArchiveFile) -> None:
    if blob.crc32c != archive.crc32c or blob.size != archive.size:
        raise MarqueeError(
            f"gs://{blob.bucket.name}/{blob.name} holds other bytes than {archive.path}: "
            f"crc32c {blob.crc32c} and {blob.size} bytes, not {archive.crc32c} and {archive.size}",
            cure="delete that object and deploy again",
        )


class _Watched:
    """A file that reports its reads; bytes that are read again for a repeated chunk count once."""

    def __init__(self, file: IO[bytes], progress: Progress) -> None:
        self._file = file
        self._progress = progress
        self._furthest = 0

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        position = self._file.tell()
        if position > self._furthest:
            self._progress.advance(position - self._furthest)
            self._furthest = position
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
