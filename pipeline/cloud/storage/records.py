"""The records of buckets and objects in the store."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pipeline.cloud.clock import UTC
from pipeline.cloud.storage.errors import StorageError, precondition_failed


@dataclass(frozen=True)
class Bucket:
    """``settings`` are the fields of the bucket resource that its owner may set; times are RFC 3339."""

    name: str
    metageneration: int
    created: str
    updated: str
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredObject:
    """One live generation. ``crc32c`` and ``md5`` are base64; a composed object has no ``md5``."""

    bucket: str
    name: str
    generation: int  # microseconds since 1970, as Google's look; grows with every write
    metageneration: int
    size: int
    crc32c: str
    md5: str | None
    created: str
    updated: str
    blob: str
    components: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        return f"gs://{self.bucket}/{self.name}"

    @property
    def content_type(self) -> str:
        return str(self.settings.get("contentType") or "application/octet-stream")


@dataclass(frozen=True)
class Preconditions:
    """The four ifGeneration... and ifMetageneration... parameters; generation 0 means: must not exist."""

    generation_match: int | None = None
    generation_not_match: int | None = None
    metageneration_match: int | None = None
    metageneration_not_match: int | None = None

    @classmethod
    def of(cls, query: Mapping[str, str], prefix: str = "if") -> Preconditions:
        """Read them from a request's parameters; prefix ``ifSource`` for the source of a copy."""

        def number(name: str) -> int | None:
            value = query.get(prefix + name)
            if value is None:
                return None
            if not re.fullmatch(r"-?[0-9]{1,19}", value):
                raise StorageError(400, "invalidParameter", f"Invalid value for {prefix}{name}: {value[:80]}")
            return int(value)

        return cls(
            number("GenerationMatch"),
            number("GenerationNotMatch"),
            number("MetagenerationMatch"),
            number("MetagenerationNotMatch"),
        )

    def check(self, current: StoredObject | Bucket | None, reading: bool = False) -> None:
        """Raise StorageError 412 when one does not hold; a not-match on a read answers 304."""
        generation = getattr(current, "generation", 0)
        metageneration = current.metageneration if current else 0
        matches = (self.generation_match, generation), (self.metageneration_match, metageneration)
        if any(wanted is not None and wanted != actual for wanted, actual in matches):
            raise precondition_failed()
        differs = (self.generation_not_match, generation), (self.metageneration_not_match, metageneration)
        if any(unwanted is not None and unwanted == actual for unwanted, actual in differs):
            raise StorageError(304, "notModified", "Not Modified") if reading else precondition_failed()


ALWAYS = Preconditions()


def timestamp() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
