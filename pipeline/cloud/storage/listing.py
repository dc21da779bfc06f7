"""A page of names: prefix, delimiter, offsets and page tokens, as in the JSON API's objects.list."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.cloud.storage.errors import StorageError, not_emulated
from pipeline.cloud.storage.objects import ObjectStore
from pipeline.cloud.storage.records import StoredObject

MAX_RESULTS = 1000


@dataclass
class Page:
    """Objects and, with a delimiter, the prefixes that stand for many; ``token`` asks for the next page."""

    items: list[StoredObject] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    token: str | None = None

    def __len__(self) -> int:
        return len(self.items) + len(self.prefixes)


def list_page(store: ObjectStore, bucket: str, query: Mapping[str, str]) -> Page:
    store.bucket(bucket)
    if query.get("versions") == "true" or query.get("matchGlob") or query.get("softDeleted") == "true":
        raise not_emulated("listing by versions, matchGlob or softDeleted")
    limit = page_size(query)
    prefix, delimiter, end = query.get("prefix", ""), query.get("delimiter", ""), query.get("endOffset", "")
    start, skipped = _position(query)
    page = Page()
    for stored in store.index.objects(bucket, prefix, start):
        if end and stored.name.encode() >= end.encode():
            break
        common = common_prefix(stored.name, prefix, delimiter)
        if stored.name == skipped or (common and common == skipped):
            continue
        if common and page.prefixes[-1:] == [common]:
            continue
        if len(page) == limit:
            page.token = encode_token(_last(page))
            break
        if common:
            page.prefixes.append(common)
        else:
            page.items.append(stored)
    return page


def page_size(query: Mapping[str, str]) -> int:
    text = query.get("maxResults", str(MAX_RESULTS))
    if not re.fullmatch(r"[0-9]{1,19}", text) or int(text) < 1:
        raise StorageError(400, "invalidParameter", f"Invalid value for maxResults: {text[:80]}")
    return min(int(text), MAX_RESULTS)


def _position(query: Mapping[str, str]) -> tuple[str, str]:
    """Where to begin, and the name or prefix that the page before ended with."""
    last = decode_token(query["pageToken"]) if query.get("pageToken") else ""
    return max(query.get("startOffset", ""), last, key=str.encode), last


def _last(page: Page) -> str:
    names = [stored.name for stored in page.items[-1:]] + page.prefixes[-1:]
    return max(names, key=str.encode)


def common_prefix(name: str, prefix: str, delimiter: str) -> str:
    """The name up to the first delimiter after the prefix, or "" when there is none."""
    position = name.find(delimiter, len(prefix)) if delimiter else -1
    return name[: position + len(delimiter)] if position >= 0 else ""


def encode_token(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode()


def decode_token(token: str) -> str:
    try:
        return base64.b64decode(token, b"-_", validate=True).decode()
    except ValueError:
        raise StorageError(400, "invalidParameter", f"Invalid page token: {token[:80]}") from None
