"""Buckets and objects as the JSON API shows and accepts them."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from pipeline.cloud.projects import project_number
from pipeline.cloud.storage.draft import Checksums
from pipeline.cloud.storage.errors import invalid, not_emulated
from pipeline.cloud.storage.records import Bucket, StoredObject

BUCKET_DEFAULTS: dict[str, Any] = {
    "location": "US",
    "locationType": "multi-region",
    "storageClass": "STANDARD",
    "iamConfiguration": {
        "bucketPolicyOnly": {"enabled": False},
        "uniformBucketLevelAccess": {"enabled": False},
        "publicAccessPrevention": "inherited",
    },
}
MULTI_REGIONS = ("US", "EU", "ASIA")
OBJECT_FIELDS = (
    "cacheControl",
    "contentDisposition",
    "contentEncoding",
    "contentLanguage",
    "contentType",
    "customTime",
    "metadata",
    "storageClass",
)
READ_ONLY_BUCKET_FIELDS = (
    "kind",
    "id",
    "name",
    "selfLink",
    "projectNumber",
    "etag",
    "timeCreated",
    "updated",
)


def bucket_resource(bucket: Bucket, base_url: str) -> dict[str, Any]:
    return {
        **bucket.settings,
        "kind": "storage#bucket",
        "id": bucket.name,
        "name": bucket.name,
        "selfLink": f"{base_url}/storage/v1/b/{bucket.name}",
        "metageneration": str(bucket.metageneration),
        "etag": f"CA{bucket.metageneration}=",
        "timeCreated": bucket.created,
        "updated": bucket.updated,
    }


def bucket_settings(resource: dict[str, Any], project: str) -> dict[str, Any]:
    """The settings of a new bucket from the resource that was sent, with Google's defaults."""
    refuse_bucket_features(resource)
    settings = {**BUCKET_DEFAULTS, **bucket_changes(resource)}
    settings["location"] = str(settings["location"]).upper()
    settings["locationType"] = "multi-region" if settings["location"] in MULTI_REGIONS else "region"
    settings["projectNumber"] = project_number(project)
    return settings


def bucket_changes(resource: dict[str, Any]) -> dict[str, Any]:
    refuse_bucket_features(resource)
    return {key: value for key, value in resource.items() if key not in READ_ONLY_BUCKET_FIELDS}


def refuse_bucket_features(resource: dict[str, Any]) -> None:
    versioning = resource.get("versioning") or {}
    if not isinstance(versioning, dict):
        raise invalid("Invalid value for versioning: an object is expected.")
    if versioning.get("enabled"):
        raise not_emulated("object versioning")
    for feature in ("retentionPolicy", "encryption", "hierarchicalNamespace"):
        if resource.get(feature):
            raise not_emulated(f"{feature} of buckets")


def object_resource(stored: StoredObject, base_url: str) -> dict[str, Any]:
    path = f"b/{stored.bucket}/o/{quote(stored.name, safe='')}"
    media = f"{base_url}/download/storage/v1/{path}?generation={stored.generation}&alt=media"
    resource: dict[str, Any] = {
        "storageClass": "STANDARD",
        **stored.settings,
        "kind": "storage#object",
        "id": f"{stored.bucket}/{stored.name}/{stored.generation}",
        "selfLink": f"{base_url}/storage/v1/{path}",
        "mediaLink": media,
        "name": stored.name,
        "bucket": stored.bucket,
        "generation": str(stored.generation),
        "metageneration": str(stored.metageneration),
        "size": str(stored.size),
        "crc32c": stored.crc32c,
        "etag": etag(stored),
        "timeCreated": stored.created,
        "updated": stored.updated,
        "timeStorageClassUpdated": stored.created,
    }
    if stored.md5 is not None:
        resource["md5Hash"] = stored.md5
    if stored.components is not None:
        resource["componentCount"] = stored.components
    return resource


def etag(stored: StoredObject) -> str:
    return f"{stored.generation}/{stored.metageneration}"


def object_settings(resource: dict[str, Any]) -> dict[str, Any]:
    """The settings of an object from the resource that was sent; the server sets the other fields."""
    for feature in ("temporaryHold", "eventBasedHold", "retention", "kmsKeyName"):
        if resource.get(feature):
            raise not_emulated(f"{feature} of objects")
    return checked_settings({key: resource[key] for key in OBJECT_FIELDS if key in resource})


def checked_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The same settings; raises StorageError 400 for one that is no text or could not be sent as a header."""
    for key, value in settings.items():
        if value is not None and not (_is_metadata(value) if key == "metadata" else _is_header(value)):
            raise invalid(f"Invalid value for {key}: {str(value)[:80]!r}")
    return settings


def _is_header(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and all(ord(letter) < 256 for letter in value)


def _is_metadata(value: object) -> bool:
    return isinstance(value, dict) and all(text is None or isinstance(text, str) for text in value.values())


def object_checksums(resource: dict[str, Any]) -> Checksums:
    found = [resource.get(key) for key in ("crc32c", "md5Hash")]
    if not all(value is None or isinstance(value, str) for value in found):
        raise invalid("Invalid value for crc32c or md5Hash: a text is expected.")
    return Checksums(*found)
