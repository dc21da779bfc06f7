"""How marquee knows its own things again: labels, and names that follow from content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

MANAGED = {"managed-by": "marquee"}
ARCHIVE_LABEL = "marquee-archive"
WEIGHTS_LABEL = "marquee-weights"
ARCHIVE_MARK = "marquee-archive"  # an uploaded object's metadata: the archive's digest
PROVED_LABEL = "marquee-proved"  # of a version, by an older marquee: the deployed model that was proved


def is_ours(labels: Mapping[str, str]) -> bool:
    """Whether the thing that carries these labels was made by marquee. A name never says so."""
    return labels.get("managed-by") == "marquee"


def is_reserved(label: str) -> bool:
    """Whether a label's key is one that marquee writes and reads itself."""
    return label in MANAGED or label.startswith("marquee-")


def short(digest: str) -> str:
    """A digest as a label: a value takes 63 characters, a SHA-256 in hex has 64."""
    return digest[:40]


def deployed_model_id(content: str, hardware: Any) -> str:
    """Nine digits that follow from what is deployed on what, so that a rerun finds the first one's work."""
    digest = hashlib.sha256(f"{content}|{hardware!r}".encode()).hexdigest()
    return str(10**8 + int(digest, 16) % (9 * 10**8))


def folder_of(model_id: str, digest: str) -> str:
    """Where an archive lies in its bucket: named by its own digest, so equal archives are one object."""
    return f"marquee/{model_id}/{digest[:16]}"
