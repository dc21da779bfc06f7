"""The names in the store: an SQLite file, so that every change is whole and the order is Google's (bytes)."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.cloud.storage.records import Bucket, StoredObject

SCHEMA = """
CREATE TABLE IF NOT EXISTS buckets (name TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS objects (
    bucket TEXT NOT NULL, name TEXT NOT NULL, record TEXT NOT NULL, PRIMARY KEY (bucket, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS uploads (id TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
"""
PAGE = 500


class Index:
    """Reads and writes records; one connection, used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.executescript(SCHEMA)

    def close(self) -> None:
        with self._lock:
            self._database.close()

    def bucket(self, name: str) -> Bucket | None:
        rows = self._rows("SELECT record FROM buckets WHERE name = ?", name)
        return Bucket(**rows[0]) if rows else None

    def buckets(self) -> list[Bucket]:
        return [Bucket(**row) for row in self._rows("SELECT record FROM buckets ORDER BY name")]

    def put_bucket(self, bucket: Bucket) -> None:
        self._run("INSERT OR REPLACE INTO buckets VALUES (?, ?)", bucket.name, json.dumps(asdict(bucket)))

    def drop_bucket(self, name: str) -> None:
        self._run("DELETE FROM buckets WHERE name = ?", name)

    def find(self, bucket: str, name: str) -> StoredObject | None:
        rows = self._rows("SELECT record FROM objects WHERE bucket = ? AND name = ?", bucket, name)
        return StoredObject(**rows[0]) if rows else None

    def objects(self, bucket: str, prefix: str = "", start: str = "") -> Iterator[StoredObject]:
        """In the order of their names' UTF-8, from ``start`` on, those that begin with ``prefix``."""
        query = "SELECT record FROM objects WHERE bucket = ? AND name {} ? ORDER BY name LIMIT ?"
        compare, position = ">=", max(prefix, start, key=str.encode)
        while rows := self._rows(query.format(compare), bucket, position, PAGE):
            for row in rows:
                if not row["name"].startswith(prefix):
                    return
                yield StoredObject(**row)
            compare, position = ">", rows[-1]["name"]

    def put_object(self, stored: StoredObject) -> None:
        record = json.dumps(asdict(stored))
        self._run("INSERT OR REPLACE INTO objects VALUES (?, ?, ?)", stored.bucket, stored.name, record)

    def drop_object(self, stored: StoredObject) -> None:
        self._run("DELETE FROM objects WHERE bucket = ? AND name = ?", stored.bucket, stored.name)

    def upload(self, upload_id: str) -> dict[str, Any] | None:
        rows = self._rows("SELECT record FROM uploads WHERE id = ?", upload_id)
        return rows[0] if rows else None

    def put_upload(self, upload_id: str, record: dict[str, Any]) -> None:
        self._run("INSERT OR REPLACE INTO uploads VALUES (?, ?)", upload_id, json.dumps(record))

    def drop_upload(self, upload_id: str) -> None:
        self._run("DELETE FROM uploads WHERE id = ?", upload_id)

    def blob_names(self) -> set[str]:
        return {row["blob"] for row in self._rows("SELECT record FROM objects")}

    def upload_ids(self) -> set[str]:
        with self._lock:
            return {upload_id for (upload_id,) in self._database.execute("SELECT id FROM uploads")}

    def _rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        with self._lock:
            return [json.loads(record) for (record,) in self._database.execute(query, values)]

    def _run(self, query: str, *values: object) -> None:
        with self._lock:
            self._database.execute(query, values)
