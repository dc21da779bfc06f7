"""The rules of Model.upload and Endpoint.create."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from pipeline.rules.images import check_image, parse_prebuilt
from pipeline.rules.table import Violation, table

ARCHIVE_NAME = "model.mar"
_LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
_MODEL_ID = re.compile(r"[a-z_][a-z0-9_-]{0,62}")
_ENDPOINT_ID = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?|[1-9][0-9]{0,8}|0")
_VERSION_ALIAS = re.compile(r"[a-z][a-zA-Z0-9-]{0,126}[a-z0-9]")
_ARTIFACT_URI = re.compile(r"gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9](?:/.*)?")


@dataclass(frozen=True)
class Upload:
    """The plain values of one UploadModel request. ``artifact_uri`` "": none."""

    display_name: str
    image_uri: str
    region: str
    artifact_uri: str = ""
    model_id: str | None = None
    version_aliases: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    deployment_timeout_seconds: int | None = None


def check_upload(upload: Upload, today: date) -> list[Violation]:
    """Every rule that an UploadModel request breaks, before anything in the bucket is looked at."""
    found = check_region(upload.region) + check_display_name(upload.display_name)
    found += check_image(upload.image_uri, upload.region, today) + check_labels(upload.labels)
    if upload.artifact_uri or parse_prebuilt(upload.image_uri):
        found += check_artifact_uri(upload.artifact_uri)
    if upload.model_id is not None and not _MODEL_ID.fullmatch(upload.model_id):
        found.append(table().violation("model_id", "model_id", upload.model_id))
    for alias in upload.version_aliases:
        if not _VERSION_ALIAS.fullmatch(alias):
            found.append(table().violation("version_alias", "version_aliases", alias))
    longest = table().max_deployment_timeout_seconds
    timeout = upload.deployment_timeout_seconds
    if timeout is not None and not 1 <= timeout <= longest:
        found.append(table().violation("deployment_timeout", "deployment_timeout", timeout, limit=longest))
    return found


def check_artifact_uri(uri: str) -> list[Violation]:
    """``gs://BUCKET/FOLDER``; the root of a bucket is named too (``enforced`` False: Google may take it)."""
    if not _ARTIFACT_URI.fullmatch(uri):
        return [table().violation("artifact_uri_shape", "artifact_uri", uri)]
    if uri.endswith(".mar"):
        return [table().violation("archive_name", "artifact_uri", uri)]
    if uri.removeprefix("gs://").rstrip("/").count("/") == 0:
        return [table().violation("artifact_uri_root", "artifact_uri", uri)]
    return []


def check_model_directory(uri: str, names: Iterable[str]) -> list[Violation]:
    """``names`` are the objects below ``uri``, relative to it. Exactly one archive is at the top: model.mar.

    Files that are not archives may lie beside it.
    """
    names = list(names)
    if not names:
        return [table().violation("artifact_missing", "artifact_uri", uri)]
    archives = [name for name in names if "/" not in name and name.endswith(".mar")]
    if archives != [ARCHIVE_NAME]:
        return [table().violation("archive_name", "artifact_uri", uri)]
    return []


def check_display_name(name: str, field_name: str = "display_name") -> list[Violation]:
    if 1 <= len(name) <= 128:
        return []
    return [table().violation("display_name", field_name, name, length=len(name))]


def check_labels(labels: Mapping[str, str]) -> list[Violation]:
    bad = [
        f"{key}={value}"
        for key, value in labels.items()
        if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value)
    ]
    if len(labels) > 64:
        bad.append(f"{len(labels)} labels")
    return [table().violation("labels", "labels", item) for item in bad]


def check_region(region: str) -> list[Violation]:
    regions = table().regions
    if region in regions:
        return []
    return [table().violation("region_unknown", "region", region, allowed=", ".join(regions))]


def check_endpoint_create(
    display_name: str,
    endpoint_id: str | None = None,
    labels: Mapping[str, str] | None = None,
    dedicated: bool = False,
    inference_timeout: int | None = None,
) -> list[Violation]:
    """Every rule that a CreateEndpoint request breaks; ``inference_timeout`` in seconds, None: default."""
    found = check_display_name(display_name) + check_labels(labels or {})
    if endpoint_id is not None and not _ENDPOINT_ID.fullmatch(endpoint_id):
        found.append(table().violation("endpoint_id", "endpoint_id", endpoint_id))
    longest = table().max_inference_timeout_seconds
    if inference_timeout is not None and not (dedicated and 1 <= inference_timeout <= longest):
        found.append(
            table().violation("inference_timeout", "inference_timeout", inference_timeout, limit=longest)
        )
    return found
