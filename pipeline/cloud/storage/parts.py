"""XML multipart uploads: parts in any order and at the same time, joined at the end."""

from __future__ import annotations

import base64
import threading
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.cloud.storage.draft import BLOCK, Checksums
from pipeline.cloud.storage.errors import StorageError
from pipeline.cloud.storage.objects import ObjectStore, target
from pipeline.cloud.storage.records import ALWAYS, StoredObject

# https://cloud.google.com/storage/quotas#requests
MAX_PARTS = 10_000
MIN_PART = 5 << 20  # bytes; every part but the last


@dataclass(frozen=True)
class Part:
    """What is known of a part that has arrived; checksums in base64."""

    etag: str
    size: int
    crc32c: str
    md5: str


class PartUploads:
    """Uploads by number of part. The reasons of the StorageErrors are the XML API's codes."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._lock = threading.Lock()

    def start(self, bucket: str, name: str, settings: dict[str, Any]) -> str:
        self._store.check_write(bucket, name, ALWAYS)
        upload_id = uuid.uuid4().hex
        record = {"bucket": bucket, "name": name, "settings": settings, "parts": {}}
        self._store.index.put_upload(upload_id, record)
        return upload_id

    def receive(self, upload_id: str, number: int, blocks: Iterable[bytes], said: Checksums) -> Part:
        """Keep one part, in place of an earlier one of this number."""
        if not 1 <= number <= MAX_PARTS:
            raise StorageError(400, "InvalidArgument", f"Part number must be from 1 to {MAX_PARTS}.")
        self._record(upload_id)
        draft = self._store.draft()
        try:
            for block in blocks:
                draft.write(block)
            draft.close()
            draft.verify(said)
        except StorageError as error:
            draft.discard()
            raise StorageError(400, "BadDigest", error.message) from None
        except BaseException:
            draft.discard()
            raise
        with self._lock:
            record = self._record(upload_id)
            draft.path.replace(self._path(upload_id, number))
            part = Part(f'"{base64.b64decode(draft.md5).hex()}"', draft.size, draft.crc32c, draft.md5)
            record["parts"][str(number)] = asdict(part)
            self._store.index.put_upload(upload_id, record)
        return part

    def complete(self, upload_id: str, parts: list[tuple[int, str]]) -> StoredObject:
        """Join the parts named by number and etag, in this order."""
        record = self._record(upload_id)
        _check_parts(parts, record["parts"])
        draft = self._store.draft()
        for number, _ in parts:
            with open(self._path(upload_id, number), "rb") as file:
                while block := file.read(BLOCK):
                    draft.write(block)
        place = target(record["bucket"], record["name"], record["settings"])
        stored = self._store.commit(draft, replace(place, components=len(parts)))
        self.cancel(upload_id)
        return stored

    def cancel(self, upload_id: str) -> None:
        record = self._record(upload_id)
        self._store.index.drop_upload(upload_id)
        for number in record["parts"]:
            self._path(upload_id, int(number)).unlink(missing_ok=True)

    def _record(self, upload_id: str) -> dict[str, Any]:
        record = self._store.index.upload(upload_id)
        if record is None or "parts" not in record:
            raise StorageError(404, "NoSuchUpload", "The requested upload was not found.")
        return record

    def _path(self, upload_id: str, number: int) -> Path:
        return self._store.uploads / f"{upload_id}.{number}"


def _check_parts(parts: list[tuple[int, str]], known: dict[str, dict[str, Any]]) -> None:
    numbers = [number for number, _ in parts]
    if not numbers or numbers != sorted(set(numbers)):
        raise StorageError(400, "InvalidPartOrder", "The list of parts was not in ascending order.")
    for number, etag in parts:
        part = known.get(str(number))
        if part is None or part["etag"].strip('"') != etag.strip('"'):
            raise StorageError(400, "InvalidPart", f"Part {number} was not found, or its entity tag differs.")
        if part["size"] < MIN_PART and number != numbers[-1]:
            raise StorageError(400, "EntityTooSmall", f"Part {number} has fewer than {MIN_PART} bytes.")
