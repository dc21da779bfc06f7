"""model.mar to Cloud Storage: once, whole, and never over something else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from pipeline.deploy.answers import explained
from pipeline.deploy.archive_file import ArchiveFile
from pipeline.deploy.connection import Connection
from pipeline.deploy.labels import MANAGED, folder_of
from pipeline.errors import MarqueeError
from pipeline.progress import Progress

if TYPE_CHECKING:
    from google.cloud.storage import Blob, Bucket

_CHUNK = 8 << 20  # bytes per request of a resumable upload; a multiple of 256 KiB


@dataclass(frozen=True)
class Uploaded:
    """Where the archive lies (gs://BUCKET/FOLDER) and how many bytes this run sent for it."""

    artifact_uri: str
    sent_bytes: int


def upload_archive(
    connection: Connection, archive: ArchiveFile, bucket_name: str, model_id: str, progress: Progress
) -> Uploaded:
    """Upload unless the very bytes are there already. Raises MarqueeError when other bytes are, or arrive."""
    folder = folder_of(model_id, archive.archive_digest)
    uri = f"gs://{bucket_name}/{folder}"
    with explained(f"uploading {archive.path}"):
        bucket = ensure_bucket(connection, bucket_name)
        blob = bucket.get_blob(f"{folder}/model.mar")
        if blob is not None:
            _compare(blob, archive)
            return Uploaded(uri, 0)
        blob = bucket.blob(f"{folder}/model.mar", chunk_size=_CHUNK)
        _send(blob, archive, progress)
        blob.reload()
        _compare(blob, archive)
    return Uploaded(uri, archive.size)


def ensure_bucket(connection: Connection, name: str) -> Bucket:
    """The bucket, made in the connection's region (and labelled as ours) when there is none."""
    from google.api_core.exceptions import Conflict

    bucket = connection.storage.lookup_bucket(name)
    if bucket is not None:
        return bucket
    bucket = connection.storage.bucket(name)
    bucket.iam_configuration.uniform_bucket_level_access_enabled = True
    bucket.labels = MANAGED
    try:
        return connection.storage.create_bucket(bucket, location=connection.region)
    except Conflict:  # another run made it just now
        return connection.storage.get_bucket(name)


def _send(blob: Blob, archive: ArchiveFile, progress: Progress) -> None:
    from google.api_core.exceptions import PreconditionFailed

    blob.metadata = {"marquee-archive": archive.archive_digest}
    progress.start(f"uploading {archive.path.name}", archive.size)
    try:
        with open(archive.path, "rb") as file:
            # Generation 0: only if nothing is there. It also lets the client retry a broken upload.
            blob.upload_from_file(
                _Watched(file, progress), size=archive.size, if_generation_match=0, checksum="crc32c"
            )
    except PreconditionFailed:
        progress.note("another run has uploaded the archive meanwhile")
    finally:
        progress.finish()


def _compare(blob: Blob, archive: ArchiveFile) -> None:
    if blob.crc32c != archive.crc32c or blob.size != archive.size:
        raise MarqueeError(
            f"gs://{blob.bucket.name}/{blob.name} holds other bytes than {archive.path}: "
            f"crc32c {blob.crc32c} and {blob.size} bytes, not {archive.crc32c} and {archive.size}",
            cure="delete that object and deploy again",
        )


class _Watched:
    """A file whose reads are reported; a step back, as when a chunk is sent again, is not counted twice."""

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
