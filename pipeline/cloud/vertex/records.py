"""The resources of the local Vertex AI: JSON in one SQLite file, in the order of their creation."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from pathlib import Path
from typing import Any


class Records:
    """Texts by kind and name. Hold ``lock`` to read and then write in one step."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.lock = threading.RLock()
        self._connection = sqlite3.connect(
            folder / "vertex.sqlite3", check_same_thread=False, isolation_level=None
        )
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS records "
            "(position INTEGER PRIMARY KEY, kind TEXT, name TEXT, body TEXT, UNIQUE (kind, name))"
        )

    def get(self, kind: str, name: str) -> str | None:
        rows = self._all("SELECT body FROM records WHERE kind = ? AND name = ?", kind, name)
        return rows[0] if rows else None

    def all(self, kind: str, prefix: str = "") -> list[str]:
        """Every text of a kind whose name starts with ``prefix``, oldest first."""
        query = "SELECT body FROM records WHERE kind = ? AND substr(name, 1, ?) = ? ORDER BY position"
        return self._all(query, kind, len(prefix), prefix)

    def put(self, kind: str, name: str, body: str) -> None:
        query = (
            "INSERT INTO records (kind, name, body) VALUES (?, ?, ?) "
            "ON CONFLICT (kind, name) DO UPDATE SET body = excluded.body"
        )
        self._all(query, kind, name, body)

    def delete(self, kind: str, name: str) -> None:
        self._all("DELETE FROM records WHERE kind = ? AND name = ?", kind, name)

    def close(self) -> None:
        with self.lock:
            self._connection.close()

    def _all(self, query: str, *values: str | int) -> list[str]:
        with self.lock:
            return [row[0] for row in self._connection.execute(query, values).fetchall()]


class Shelf:
    """The records of one kind as proto-plus messages of one class; each write renews the ``etag``."""

    def __init__(self, records: Records, kind: str, message: type[Any]) -> None:
        self._records = records
        self._kind = kind
        self._message = message

    def get(self, name: str) -> Any | None:
        text = self._records.get(self._kind, name)
        return None if text is None else self._message.from_json(text)

    def all(self, prefix: str) -> list[Any]:
        return [self._message.from_json(text) for text in self._records.all(self._kind, prefix)]

    def put(self, name: str, message: Any) -> None:
        message.etag = ""
        message.etag = hashlib.sha256(self._message.serialize(message)).hexdigest()[:16]
        self._records.put(self._kind, name, self._message.to_json(message, indent=None))

    def delete(self, name: str) -> None:
        self._records.delete(self._kind, name)
