"""Removes content that belongs to no object after a server was killed."""

from __future__ import annotations

from pathlib import Path

from pipeline.cloud.storage.index import Index


def sweep(index: Index, blobs: Path, uploads: Path) -> None:
    """Remove content that no object has and drafts of no unfinished upload; only before anybody writes."""
    named = index.blob_names()
    for path in blobs.iterdir():
        if path.name not in named:
            path.unlink(missing_ok=True)
    known = index.upload_ids()
    for path in uploads.iterdir():
        if path.name.partition(".")[0] not in known:
            path.unlink(missing_ok=True)
