"""Vertex AI's reads from Cloud Storage: the listing of a model's folder, and the archive."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline.cloud.faults import FaultBook
from pipeline.cloud.state import PROJECT_NUMBER
from pipeline.cloud.storage.errors import StorageError
from pipeline.cloud.storage.objects import ObjectStore
from pipeline.cloud.vertex.checks import failure_of
from pipeline.rules import ARCHIVE_NAME

SERVICE_AGENT = f"service-{PROJECT_NUMBER}@gcp-sa-aiplatform.iam.gserviceaccount.com"


class Artifacts:
    """Reads the local buckets as Vertex AI's service agent."""

    def __init__(self, store: ObjectStore, faults: FaultBook) -> None:
        self._store = store
        self._faults = faults

    def names(self, uri: str) -> list[str]:
        """The objects below ``uri``, relative to it; empty when there is no such bucket or folder."""
        bucket, prefix = _split(uri)
        try:
            found = self._store.list(bucket, prefix)
        except StorageError:
            return []
        return [stored.name.removeprefix(prefix) for stored in found if stored.name != prefix]

    def fetch_archive(self, uri: str, folder: Path) -> Path:
        """Copy model.mar out of ``uri`` into ``folder``; raises ServiceFailure when it may not or cannot."""
        bucket, prefix = _split(uri)
        name = f"{prefix}{ARCHIVE_NAME}"
        if self._faults.take("storage-permission-denied", f"{bucket}/{name}") is not None:
            raise failure_of("artifact_permission", "artifact_uri", SERVICE_AGENT)
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / ARCHIVE_NAME
        try:
            with self._store.open(bucket, name) as source, open(target, "wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
        except StorageError as error:
            raise failure_of("artifact_missing", "artifact_uri", uri) from error
        return target


def _split(uri: str) -> tuple[str, str]:
    """Bucket and prefix; a prefix that is not empty ends in a slash."""
    bucket, _, prefix = uri.removeprefix("gs://").partition("/")
    prefix = prefix.rstrip("/")
    return bucket, f"{prefix}/" if prefix else ""
