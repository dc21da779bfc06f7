"""The content of an object as an answer: whole, or the part that a Range header asks for."""

from __future__ import annotations

import re

from pipeline.cloud.storage.errors import StorageError
from pipeline.cloud.storage.exchange import Request, Response
from pipeline.cloud.storage.objects import ObjectStore
from pipeline.cloud.storage.records import StoredObject
from pipeline.cloud.storage.resources import etag


def content_response(store: ObjectStore, stored: StoredObject, request: Request) -> Response:
    headers = content_headers(stored)
    status, start, length = 200, 0, stored.size
    wanted = _range(request.headers.get("Range", ""), stored.size)
    if wanted is not None:
        status, (start, length) = 206, wanted
        headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{stored.size}"
    if request.method == "HEAD":
        return Response(status, {**headers, "Content-Length": str(length)})
    return Response(status, headers, store.open_stored(stored), start, length)


def content_headers(stored: StoredObject) -> dict[str, str]:
    hashes = f"crc32c={stored.crc32c}" + (f",md5={stored.md5}" if stored.md5 else "")
    settings = stored.settings
    headers = {
        "Content-Type": stored.content_type,
        "ETag": f'"{etag(stored)}"',
        "Accept-Ranges": "bytes",
        "x-goog-hash": hashes,
        "x-goog-generation": str(stored.generation),
        "x-goog-metageneration": str(stored.metageneration),
        "x-goog-stored-content-length": str(stored.size),
        "x-goog-stored-content-encoding": settings.get("contentEncoding", "identity"),
        "x-goog-storage-class": settings.get("storageClass", "STANDARD"),
    }
    named = {"contentEncoding": "Content-Encoding", "cacheControl": "Cache-Control"}
    headers.update({header: settings[key] for key, header in named.items() if key in settings})
    return headers


def _range(header: str, size: int) -> tuple[int, int] | None:
    """First byte and number of bytes; None for the whole. Raises StorageError 416."""
    match = re.fullmatch(r"bytes=([0-9]{0,19})-([0-9]{0,19})", header.strip())
    if not match or match.group(0) == "bytes=-":
        return None
    first, last = match.groups()
    start = int(first) if first else max(0, size - int(last))
    end = min(int(last), size - 1) if first and last else size - 1
    if start >= size or start > end:
        raise StorageError(416, "requestedRangeNotSatisfiable", f"Request range not satisfiable: {header}")
    return start, end - start + 1
