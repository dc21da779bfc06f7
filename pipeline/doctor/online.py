"""Checks that ask the cloud: APIs, permissions, bucket and region, quota. They change nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pipeline.deploy.connection import Connection
from pipeline.doctor.content import check_folder
from pipeline.doctor.findings import Finding, known_failure, passed
from pipeline.doctor.subject import Subject
from pipeline.rules import table

_PERMISSIONS = (
    "aiplatform.models.upload",
    "aiplatform.models.delete",
    "aiplatform.endpoints.create",
    "aiplatform.endpoints.deploy",
    "aiplatform.endpoints.predict",
    "aiplatform.endpoints.delete",
)
_OBJECT_PERMISSIONS = (
    "storage.objects.create",
    "storage.objects.get",
    "storage.objects.list",
    "storage.objects.delete",
)
_APIS = ("aiplatform.googleapis.com", "storage.googleapis.com")
_SECONDS = 30.0


def check_cloud(connection: Connection, subject: Subject, quotas: Mapping[str, int]) -> list[Finding]:
    """``quotas`` holds limits that are known already (a local cloud's), by quota name."""
    found = [passed("credentials", f"accepted for project {connection.project}")]
    found += [_check_api(connection, api) for api in _APIS]
    found += _check_permissions(connection) + _check_vertex(connection)
    found += _check_bucket(connection, subject) + _check_quota(connection, subject, quotas)
    return found


def _ask(connection: Connection, method: str, service: str, path: str, body: Any = None) -> dict[str, Any]:
    """One REST call to a Google service; an error's answer comes back as ``{"error": ...}``."""
    import httpx

    try:
        url = f"{connection.service_url(service)}{path}"
        answer = connection.web.request(method, url, json=body, timeout=_SECONDS)
        document = answer.json()
    except (httpx.TransportError, ValueError) as error:
        return {"error": {"message": str(error)}}
    return document if isinstance(document, dict) else {"error": {"message": str(document)[:200]}}


def _check_api(connection: Connection, api: str) -> Finding:
    answer = _ask(connection, "GET", "serviceusage", f"/v1/projects/{connection.project}/services/{api}")
    state = answer.get("state")
    if state == "ENABLED":
        return passed("API", f"{api} is enabled")
    if state is None:
        why = answer.get("error", {}).get("message", "no answer")
        return Finding("API", "notice", f"it is not known whether {api} is enabled: {why}")
    return known_failure("API", "api_disabled", api=api, state=state, project=connection.project)


def _check_permissions(connection: Connection) -> list[Finding]:
    path = f"/v1/projects/{connection.project}:testIamPermissions"
    answer = _ask(connection, "POST", "cloudresourcemanager", path, {"permissions": list(_PERMISSIONS)})
    if "error" in answer:
        why = answer["error"].get("message", "no answer")
        return [Finding("permissions", "notice", f"the permissions are not known: {why}")]
    denied = [name for name in _PERMISSIONS if name not in answer.get("permissions", [])]
    where = f"project {connection.project}"
    return (
        [_denied("permissions", ", ".join(denied), where)]
        if denied
        else [passed("permissions", "all are granted")]
    )


def _denied(check: str, what: str, where: str) -> Finding:
    return known_failure(check, "permission", who="this account", what=what, where=where)


def _check_vertex(connection: Connection) -> list[Finding]:
    """Two calls that only read: where they are refused, deploying would be refused too."""
    return [
        *_tried(
            "models", connection, lambda: list(connection.models.list_models(parent=connection.location))
        ),
        *_tried(
            "endpoints",
            connection,
            lambda: list(connection.endpoints.list_endpoints(parent=connection.location)),
        ),
    ]


def _tried(what: str, connection: Connection, call: Callable[[], object]) -> list[Finding]:
    from google.api_core.exceptions import Forbidden, GoogleAPICallError

    try:
        call()
    except Forbidden:
        return [_denied(what, f"aiplatform.{what}.list", connection.location)]
    except GoogleAPICallError as error:
        return [Finding(what, "notice", f"Vertex AI answers {error.message}", "try again later")]
    return [passed(what, f"Vertex AI lists its {what}")]


def _check_bucket(connection: Connection, subject: Subject) -> list[Finding]:
    from google.api_core.exceptions import Forbidden, GoogleAPICallError

    bucket_name, _, folder = subject.artifact_uri.removeprefix("gs://").partition("/")
    try:
        bucket = connection.storage.lookup_bucket(bucket_name)
        if bucket is None and subject.uploads:
            return [passed("bucket", f"{bucket_name} will be created in {connection.region}")]
        if bucket is None:
            return [known_failure("bucket", "bucket_empty", artifact_uri=subject.artifact_uri)]
        found = _bucket_findings(connection, bucket)
        if not subject.uploads:
            prefix = f"{folder.rstrip('/')}/" if folder else ""
            names = [blob.name.removeprefix(prefix) for blob in bucket.list_blobs(prefix=prefix)]
            found += check_folder(subject.artifact_uri, names, archive_is_ours=False)
    except Forbidden as error:
        return [_denied("bucket", _permission_in(str(error.message)), f"bucket {bucket_name}")]
    except GoogleAPICallError as error:
        return [Finding("bucket", "notice", f"Cloud Storage answers {error.message}", "try again later")]
    return found


def _bucket_findings(connection: Connection, bucket: Any) -> list[Finding]:
    found = []
    location = str(bucket.location).lower()
    if location != connection.region and location not in connection.region.split("-")[:1]:
        facts = {"bucket": bucket.name, "location": location, "region": connection.region}
        found.append(known_failure("bucket", "bucket_region", **facts))
    granted = bucket.test_iam_permissions(list(_OBJECT_PERMISSIONS))
    denied = [name for name in _OBJECT_PERMISSIONS if name not in granted]
    if denied:
        found.append(_denied("bucket", ", ".join(denied), f"bucket {bucket.name}"))
    return found or [passed("bucket", f"{bucket.name} in {location}")]


def _permission_in(message: str) -> str:
    words = [word.strip("'\",.") for word in message.split()]
    return next((word for word in words if word.startswith("storage.")), "storage.buckets.get")


def _check_quota(connection: Connection, subject: Subject, quotas: Mapping[str, int]) -> list[Finding]:
    accelerator = table().accelerators.get(subject.accelerator or "")
    if accelerator is None:
        return []
    wanted = subject.accelerator_count * max(1, subject.max_replicas)
    limit = quotas.get(accelerator.quota)
    if limit is None and connection.cloud == "google":
        limit = _asked_quota(connection, accelerator.quota)
        if limit is None:
            how = "look at IAM & Admin, Quotas"
            return [Finding("quota", "notice", f"the quota {accelerator.quota} is not known", how)]
    if limit is not None and limit < wanted:
        name, region = accelerator.quota, subject.region
        return [known_failure("quota", "quota", quota=name, region=region, limit=limit, wanted=wanted)]
    return [passed("quota", f"{wanted} x {accelerator.name} in {subject.region}")]


def _asked_quota(connection: Connection, quota: str) -> int | None:
    """The region's limit by the Service Usage API (not verified against the real service), or None."""
    metric = f"aiplatform.googleapis.com%2F{quota}"
    path = (
        f"/v1beta1/projects/{connection.project}/services/aiplatform.googleapis.com/"
        f"consumerQuotaMetrics/{metric}"
    )
    answer = _ask(connection, "GET", "serviceusage", path)
    for limit in answer.get("consumerQuotaLimits", []):
        for bucket in limit.get("quotaBuckets", []):
            if bucket.get("dimensions", {}).get("region") == connection.region:
                return int(bucket.get("effectiveLimit", 0))
    return None
