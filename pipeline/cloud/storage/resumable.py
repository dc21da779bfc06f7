"""Resumable uploads: sessions on disk, so that an upload continues after a cut or a restart."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pipeline.cloud.storage.draft import Checksums, Draft
from pipeline.cloud.storage.errors import StorageError, invalid, no_upload
from pipeline.cloud.storage.objects import ObjectStore, target
from pipeline.cloud.storage.records import Preconditions, StoredObject

# Google keeps what arrived of a cut request in multiples of this, and asks it of every request but the last.
GRANULE = 256 * 1024


@dataclass(frozen=True)
class Session:
    """An upload's session. ``total`` is None until the client sends it; ``result`` is set once it is done."""

    id: str
    bucket: str
    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    preconditions: dict[str, int | None] = field(default_factory=dict)
    checksums: dict[str, str | None] = field(default_factory=dict)
    total: int | None = None
    result: dict[str, Any] | None = None


@dataclass(frozen=True)
class ContentRange:
    """``bytes FIRST-LAST/TOTAL``; ``first`` None when the request only asks or ends; ``total`` None for *."""

    first: int | None
    last: int | None
    total: int | None

    @classmethod
    def parse(cls, text: str) -> ContentRange:
        match = re.fullmatch(r"bytes (?:([0-9]{1,19})-([0-9]{1,19})|\*)/([0-9]{1,19}|\*)", text.strip())
        if not match:
            raise invalid(f"Invalid Content-Range: {text}")
        first, last, total = (int(part) if part and part != "*" else None for part in match.groups())
        return cls(first, last, total)


class ResumableUploads:
    """``receive`` returns the object when the upload is complete, else the number of bytes that are safe."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._drafts: dict[str, Draft] = {}
        self._locks: dict[str, threading.Lock] = {}

    def start(
        self,
        place: StoredObject,
        preconditions: Preconditions,
        checksums: Checksums,
        total: int | None,
    ) -> Session:
        self._store.check_write(place.bucket, place.name, preconditions)
        session = Session(
            secrets.token_hex(32),  # its URI is enough to go on with the upload
            place.bucket,
            place.name,
            place.settings,
            asdict(preconditions),
            asdict(checksums),
            total,
        )
        self._save(session)
        return session

    def session(self, upload_id: str) -> Session:
        record = self._store.index.upload(upload_id)
        if record is None or "parts" in record:
            raise no_upload(upload_id)
        return Session(**record)

    def receive(
        self, upload_id: str, content_range: ContentRange | None, blocks: Iterable[bytes], said: Checksums
    ) -> StoredObject | int:
        """Append what is new of ``blocks``. Without a range they are the whole content."""
        with self._locks.setdefault(upload_id, threading.Lock()):
            session = self.session(upload_id)
            if session.result is not None:
                return StoredObject(**session.result)
            size = self._append(session, content_range or ContentRange(0, None, None), blocks)
            total = content_range.total if content_range else size
            session = self._with_total(session, total)
            return size if session.total is None or size < session.total else self._finish(session, said)

    def cancel(self, upload_id: str) -> None:
        with self._locks.setdefault(upload_id, threading.Lock()):
            session = self.session(upload_id)
            self._draft(session).discard()
            self._forget(session)

    def close(self) -> None:
        for draft in self._drafts.values():
            draft.close()

    def _draft(self, session: Session) -> Draft:
        draft = self._drafts.get(session.id)
        if draft is None:
            draft = _whole_granules(Draft(self._store.uploads / session.id))
            self._drafts[session.id] = draft
        return draft

    def _append(self, session: Session, content_range: ContentRange, blocks: Iterable[bytes]) -> int:
        """Write the bytes beyond those that are safe already; returns how many are safe then."""
        draft = self._draft(session)
        if content_range.first is None:
            return draft.size
        if content_range.first > draft.size:
            raise invalid(
                f"Invalid request. {draft.size} bytes are stored, the next is {content_range.first}."
            )
        known, complete = draft.size - content_range.first, False
        try:
            for block in blocks:
                if known < len(block):
                    draft.write(block[known:])
                known = max(0, known - len(block))
            complete = True
        finally:
            draft.flush()
            if not complete:
                self._drafts[session.id] = _whole_granules(draft)
        last = content_range.last
        if last is not None and content_range.total != last + 1 and draft.size % GRANULE:
            raise invalid(f"Invalid request. Each request but the last takes a multiple of {GRANULE} bytes.")
        return draft.size

    def _with_total(self, session: Session, total: int | None) -> Session:
        if total is None or total == session.total:
            return session
        if session.total is not None:
            raise invalid(f"Invalid request. The upload has {session.total} bytes in all, not {total}.")
        session = replace(session, total=total)
        self._save(session)
        return session

    def _finish(self, session: Session, said: Checksums) -> StoredObject:
        draft = self._drafts[session.id]
        if draft.size != session.total:
            raise invalid(
                f"Invalid request. {draft.size} bytes arrived where {session.total} were announced."
            )
        del self._drafts[session.id]
        try:
            stored = self._store.commit(
                draft,
                target(session.bucket, session.name, session.settings),
                Preconditions(**session.preconditions),
                said.merge(Checksums(**session.checksums)),
            )
        except StorageError:
            self._forget(session)
            raise
        self._save(replace(session, result=asdict(stored)))
        return stored

    def _save(self, session: Session) -> None:
        self._store.index.put_upload(session.id, asdict(session))

    def _forget(self, session: Session) -> None:
        self._drafts.pop(session.id, None)
        self._store.index.drop_upload(session.id)


def _whole_granules(draft: Draft) -> Draft:
    excess = draft.size % GRANULE
    return draft.truncate(draft.size - excess) if excess else draft
