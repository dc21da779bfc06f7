"""How marquee recognises its own resources: by labels, and by names computed from their content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

MANAGED = {"managed-by": "marquee"}
ARCHIVE_LABEL = "marquee-archive"
WEIGHTS_LABEL = "marquee-weights"
ARCHIVE_MARK = "marquee-archive"  # an uploaded object's metadata: the archive's digest
PROVED_LABEL = "marquee-proved"  # written on a version by older marquees: the id of its proved deployed model


def is_ours(labels: Mapping[str, str]) -> bool:
    """Whether marquee made the resource with these labels. Names are no evidence of that."""
    return labels.get("managed-by") == "marquee"


def is_reserved(label: str) -> bool:
    """Whether marquee itself uses this label key."""
    return label in MANAGED or label.startswith("marquee-")


def short(digest: str) -> str:
    """A digest shortened to fit a label: values have at most 63 characters, a SHA-256 in hex has 64."""
    return digest[:40]


def deployed_model_id(content: str, hardware: Any) -> str:
    """Nine digits computed from content and hardware, so that a repeated run finds its earlier deployment."""
    digest = hashlib.sha256(f"{content}|{hardware!r}".encode()).hexdigest()
    return str(10**8 + int(digest, 16) % (9 * 10**8))


def folder_of(model_id: str, digest: str) -> str:
    """An archive's folder in its bucket. The archive's digest names it, so equal archives are one object."""
    return f"marquee/{model_id}/{digest[:16]}"
