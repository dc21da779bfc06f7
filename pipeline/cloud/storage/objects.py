"""Buckets and objects on disk: an index of names, and one file for each generation's content."""

from __future__ import annotations

import os
import re
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.cloud.storage.draft import BLOCK, Checksums, Draft
from pipeline.cloud.storage.errors import StorageError, conflict, invalid, no_bucket, no_object
from pipeline.cloud.storage.index import Index
from pipeline.cloud.storage.leftovers import sweep
from pipeline.cloud.storage.records import ALWAYS, Bucket, Preconditions, StoredObject, timestamp

MAX_COMPONENTS = 32  # https://cloud.google.com/storage/docs/composite-objects
BUCKET_NAME = re.compile(r"(?!goog)[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")


class ObjectStore:
    """Cloud Storage without the network. Every method raises StorageError as the JSON API would answer.

    ``folder`` holds ``index.sqlite3``, ``blobs/`` and ``uploads/``. Thread-safe, one process at a time.
    """

    def __init__(self, folder: Path) -> None:
        self.uploads = folder / "uploads"
        self._blobs = folder / "blobs"
        for path in (self.uploads, self._blobs):
            path.mkdir(parents=True, exist_ok=True)
        self.index = Index(folder / "index.sqlite3")
        sweep(self.index, self._blobs, self.uploads)
        self.lock = threading.RLock()
        self._last_generation = 0

    def close(self) -> None:
        self.index.close()

    def create_bucket(self, name: str, settings: dict[str, Any] | None = None) -> Bucket:
        if not BUCKET_NAME.fullmatch(name):
            raise invalid(f"Invalid bucket name: '{name}'")
        with self.lock:
            if self.index.bucket(name):
                raise conflict(
                    "Your previous request to create the named bucket succeeded and you already own it."
                )
            now = timestamp()
            bucket = Bucket(name, 1, now, now, settings or {})
            self.index.put_bucket(bucket)
        return bucket

    def bucket(self, name: str, preconditions: Preconditions = ALWAYS) -> Bucket:
        bucket = self.index.bucket(name)
        if bucket is None:
            raise no_bucket()
        preconditions.check(bucket, reading=True)
        return bucket

    def buckets(self) -> list[Bucket]:
        return self.index.buckets()

    def patch_bucket(
        self, name: str, changes: dict[str, Any], preconditions: Preconditions = ALWAYS
    ) -> Bucket:
        """Merge the changes into the settings; None removes one."""
        with self.lock:
            bucket = self.bucket(name)
            preconditions.check(bucket)
            bucket = replace(
                bucket,
                metageneration=bucket.metageneration + 1,
                updated=timestamp(),
                settings=merge(bucket.settings, changes),
            )
            self.index.put_bucket(bucket)
        return bucket

    def delete_bucket(self, name: str, preconditions: Preconditions = ALWAYS) -> None:
        with self.lock:
            preconditions.check(self.bucket(name))
            if next(self.index.objects(name), None):
                raise conflict("The bucket you tried to delete is not empty.")
            self.index.drop_bucket(name)

    def list(self, bucket: str, prefix: str = "") -> list[StoredObject]:
        """All live objects whose names begin with ``prefix``, in order."""
        self.bucket(bucket)
        return list(self.index.objects(bucket, prefix))

    def get(
        self,
        bucket: str,
        name: str,
        preconditions: Preconditions = ALWAYS,
        generation: int | None = None,
    ) -> StoredObject:
        """The live object; with ``generation``, only if that is the live one (there are no others here)."""
        stored = self._existing(bucket, name, generation)
        preconditions.check(stored, reading=True)
        return stored

    def _existing(self, bucket: str, name: str, generation: int | None = None) -> StoredObject:
        self.bucket(bucket)
        stored = self.index.find(bucket, name)
        if stored is None or generation not in (None, stored.generation):
            raise no_object(bucket, name)
        return stored

    def open(self, bucket: str, name: str) -> BinaryIO:
        """The content of the live object, to be closed by the caller."""
        return self.open_stored(self.get(bucket, name))

    def open_stored(self, stored: StoredObject) -> BinaryIO:
        """The content of this generation; raises StorageError 404 when it has been replaced meanwhile."""
        try:
            return open(self._blobs / stored.blob, "rb")
        except FileNotFoundError:
            raise no_object(stored.bucket, stored.name) from None

    def draft(self) -> Draft:
        """A place for new content, to be given to ``commit`` or discarded."""
        return Draft(self.uploads / uuid.uuid4().hex)

    def check_write(self, bucket: str, name: str, preconditions: Preconditions) -> None:
        """Raise what ``commit`` would raise now, before any content is sent."""
        self.bucket(bucket)
        if not 0 < len(name.encode()) <= 1024 or name in (".", "..") or re.search(r"[\r\n]", name):
            raise invalid(f"Invalid object name: '{name}'")
        preconditions.check(self.index.find(bucket, name))

    def commit(
        self,
        draft: Draft,
        target: StoredObject,
        preconditions: Preconditions = ALWAYS,
        expected: Checksums = Checksums(),  # noqa: B008 - frozen
    ) -> StoredObject:
        """Make the draft the live content of ``target`` (see ``target``), in one step, or discard it."""
        draft.close()
        try:
            draft.verify(expected)
            with self.lock:
                self.check_write(target.bucket, target.name, preconditions)
                blob = uuid.uuid4().hex
                os.replace(draft.path, self._blobs / blob)
                return self._publish(
                    replace(
                        target,
                        size=draft.size,
                        crc32c=draft.crc32c,
                        md5=None if target.components else draft.md5,
                        blob=blob,
                    )
                )
        finally:
            draft.discard()

    def _publish(self, stored: StoredObject) -> StoredObject:
        before = self.index.find(stored.bucket, stored.name)
        now = timestamp()
        self._last_generation = max(time.time_ns() // 1000, self._last_generation + 1)
        stored = replace(stored, generation=self._last_generation, metageneration=1, created=now, updated=now)
        self.index.put_object(stored)
        if before:
            (self._blobs / before.blob).unlink(missing_ok=True)
        return stored

    def patch(
        self, bucket: str, name: str, changes: dict[str, Any], preconditions: Preconditions = ALWAYS
    ) -> StoredObject:
        with self.lock:
            stored = self._existing(bucket, name)
            preconditions.check(stored)
            stored = replace(
                stored,
                metageneration=stored.metageneration + 1,
                updated=timestamp(),
                settings=merge(stored.settings, changes),
            )
            self.index.put_object(stored)
        return stored

    def delete(
        self,
        bucket: str,
        name: str,
        preconditions: Preconditions = ALWAYS,
        generation: int | None = None,
    ) -> None:
        with self.lock:
            stored = self._existing(bucket, name, generation)
            preconditions.check(stored)
            self.index.drop_object(stored)
            (self._blobs / stored.blob).unlink(missing_ok=True)

    def copy(
        self, source: StoredObject, target: StoredObject, preconditions: Preconditions = ALWAYS
    ) -> StoredObject:
        """Make ``target`` hold the source's content, which is shared on disk."""
        with self.lock:
            self.check_write(target.bucket, target.name, preconditions)
            blob = uuid.uuid4().hex
            try:
                os.link(self._blobs / source.blob, self._blobs / blob)
            except FileNotFoundError:
                raise no_object(source.bucket, source.name) from None
            return self._publish(
                replace(source, bucket=target.bucket, name=target.name, blob=blob, settings=target.settings)
            )

    def compose(
        self, sources: Sequence[StoredObject], target: StoredObject, preconditions: Preconditions = ALWAYS
    ) -> StoredObject:
        """Make ``target`` hold the sources' contents one after the other; it has no md5."""
        if not 1 <= len(sources) <= MAX_COMPONENTS:
            raise StorageError(
                400, "invalid", f"The number of source components ({len(sources)}) exceeds the maximum (32)"
            )
        draft = self.draft()
        for source in sources:
            with self.open_stored(source) as file:
                while block := file.read(BLOCK):
                    draft.write(block)
        components = sum(source.components or 1 for source in sources)
        return self.commit(draft, replace(target, components=components), preconditions)


def target(bucket: str, name: str, settings: dict[str, Any] | None = None) -> StoredObject:
    """An object that is yet to be written: its place and its settings."""
    return StoredObject(bucket, name, 0, 0, 0, "", None, "", "", "", settings=settings or {})


def merge(old: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """JSON merge patch (RFC 7396): objects merge, None removes, anything else replaces."""
    merged = dict(old)
    for key, value in changes.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = merge({}, value) if isinstance(value, dict) else value
    return merged
