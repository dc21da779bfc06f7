"""The JSON API, https://cloud.google.com/storage/docs/json_api/v1, without uploads."""

from __future__ import annotations

from typing import Any

from pipeline.cloud.projects import project_number
from pipeline.cloud.storage.downloads import content_response
from pipeline.cloud.storage.errors import StorageError, invalid
from pipeline.cloud.storage.exchange import Request, Response, json_response, whole_number
from pipeline.cloud.storage.listing import decode_token, encode_token, list_page, page_size
from pipeline.cloud.storage.objects import target
from pipeline.cloud.storage.records import Preconditions, StoredObject
from pipeline.cloud.storage.resources import (
    bucket_changes,
    bucket_resource,
    bucket_settings,
    object_resource,
    object_settings,
)
from pipeline.cloud.storage.service import Service

POLICY = "iamPolicy"  # where a bucket's settings keep its policy


def list_buckets(service: Service, request: Request) -> Response:
    after = decode_token(request.query["pageToken"]) if request.query.get("pageToken") else ""
    prefix, limit = request.query.get("prefix", ""), page_size(request.query)
    number = project_number(_project(request))
    buckets = [
        bucket
        for bucket in service.store.buckets()
        if bucket.name > after
        and bucket.name.startswith(prefix)
        and bucket.settings.get("projectNumber") == number
    ]
    answer: dict[str, object] = {
        "kind": "storage#buckets",
        "items": [bucket_resource(bucket, request.base_url) for bucket in buckets[:limit]],
    }
    if len(buckets) > limit:
        answer["nextPageToken"] = encode_token(buckets[limit - 1].name)
    return json_response(answer)


def insert_bucket(service: Service, request: Request) -> Response:
    resource = request.json()
    name = str(resource.get("name", ""))
    service.refuse_if_asked(name)
    bucket = service.store.create_bucket(name, bucket_settings(resource, _project(request)))
    return json_response(bucket_resource(bucket, request.base_url))


def get_bucket(service: Service, request: Request, bucket: str) -> Response:
    found = service.store.bucket(bucket, Preconditions.of(request.query))
    return json_response(bucket_resource(found, request.base_url))


def patch_bucket(service: Service, request: Request, bucket: str) -> Response:
    changes = bucket_changes(request.json())
    changed = service.store.patch_bucket(bucket, changes, Preconditions.of(request.query))
    return json_response(bucket_resource(changed, request.base_url))


def delete_bucket(service: Service, request: Request, bucket: str) -> Response:
    service.store.delete_bucket(bucket, Preconditions.of(request.query))
    return Response(204)


def test_permissions(service: Service, request: Request, bucket: str) -> Response:
    """Everything is permitted to everybody who reaches this loopback server."""
    service.store.bucket(bucket)
    permissions = request.multiple.get("permissions", [])
    return json_response({"kind": "storage#testIamPermissionsResponse", "permissions": permissions})


def get_policy(service: Service, request: Request, bucket: str) -> Response:
    policy = service.store.bucket(bucket).settings.get(POLICY, {"version": 1, "bindings": [], "etag": "CAE="})
    return json_response({"kind": "storage#policy", "resourceId": f"projects/_/buckets/{bucket}", **policy})


def set_policy(service: Service, request: Request, bucket: str) -> Response:
    """Kept and returned, but not enforced."""
    service.store.patch_bucket(bucket, {POLICY: request.json()})
    return get_policy(service, request, bucket)


def service_account(service: Service, request: Request, project: str) -> Response:
    address = f"service-{project}@gs-project-accounts.iam.gserviceaccount.com"
    return json_response({"kind": "storage#serviceAccount", "email_address": address})


def list_objects(service: Service, request: Request, bucket: str) -> Response:
    page = list_page(service.store, bucket, request.query)
    answer: dict[str, object] = {"kind": "storage#objects"}
    if page.items:
        answer["items"] = [object_resource(stored, request.base_url) for stored in page.items]
    if page.prefixes:
        answer["prefixes"] = page.prefixes
    if page.token:
        answer["nextPageToken"] = page.token
    return json_response(answer)


def get_object(service: Service, request: Request, bucket: str, name: str) -> Response:
    generation = _generation(request)
    stored = service.store.get(bucket, name, Preconditions.of(request.query), generation)
    if request.query.get("alt") == "media":
        return content_response(service.store, stored, request)
    return json_response(object_resource(stored, request.base_url))


def patch_object(service: Service, request: Request, bucket: str, name: str) -> Response:
    service.store.get(bucket, name, generation=_generation(request))
    changes = object_settings(request.json())
    changed = service.store.patch(bucket, name, changes, Preconditions.of(request.query))
    return json_response(object_resource(changed, request.base_url))


def update_object(service: Service, request: Request, bucket: str, name: str) -> Response:
    """PUT replaces all that the caller may set, where PATCH merges."""
    stored = service.store.get(bucket, name, generation=_generation(request))
    changes = {**dict.fromkeys(stored.settings), **object_settings(request.json())}
    changed = service.store.patch(bucket, name, changes, Preconditions.of(request.query))
    return json_response(object_resource(changed, request.base_url))


def delete_object(service: Service, request: Request, bucket: str, name: str) -> Response:
    service.store.delete(bucket, name, Preconditions.of(request.query), _generation(request))
    return Response(204)


def compose(service: Service, request: Request, bucket: str, name: str) -> Response:
    wanted = request.json()
    parts = wanted.get("sourceObjects", [])
    if not isinstance(parts, list) or not isinstance(wanted.get("destination") or {}, dict):
        raise invalid("Invalid value for sourceObjects or destination.")
    sources = [_component(service, bucket, part) for part in parts]
    settings = object_settings(wanted.get("destination") or {})
    if sources and "contentType" not in settings:
        settings["contentType"] = sources[0].content_type
    place = target(bucket, name, settings)
    stored = service.store.compose(sources, place, Preconditions.of(request.query))
    if request.query.get("deleteSourceObjects") == "true":
        for source in sources:
            service.store.delete(bucket, source.name, generation=source.generation)
    return json_response(object_resource(stored, request.base_url))


def _component(service: Service, bucket: str, part: Any) -> StoredObject:
    """One source of a composed object, with its own preconditions."""
    conditions = (part.get("objectPreconditions") or {}) if isinstance(part, dict) else None
    if not isinstance(conditions, dict) or not isinstance(part.get("name"), str):
        raise invalid("Invalid value for sourceObjects: each is an object with a name.")
    match, generation = conditions.get("ifGenerationMatch"), part.get("generation")
    wanted = None if match is None else whole_number(str(match), "ifGenerationMatch")
    return service.store.get(
        bucket,
        part["name"],
        Preconditions(generation_match=wanted),
        whole_number(str(generation), "generation") if generation else None,
    )


def rewrite(
    service: Service, request: Request, bucket: str, name: str, to_bucket: str, to_name: str
) -> Response:
    """Copies in one step, whatever the size: never a rewriteToken."""
    copied = _copied(service, request, (bucket, name), (to_bucket, to_name))
    size = copied["size"]
    progress = {
        "kind": "storage#rewriteResponse",
        "totalBytesRewritten": size,
        "objectSize": size,
        "done": True,
    }
    return json_response({**progress, "resource": copied})


def copy(
    service: Service, request: Request, bucket: str, name: str, to_bucket: str, to_name: str
) -> Response:
    return json_response(_copied(service, request, (bucket, name), (to_bucket, to_name)))


def _copied(
    service: Service, request: Request, source: tuple[str, str], destination: tuple[str, str]
) -> dict[str, object]:
    text = request.query.get("sourceGeneration")
    conditions = Preconditions.of(request.query, "ifSource")
    generation = whole_number(text, "sourceGeneration") if text else None
    stored = service.store.get(*source, conditions, generation)
    service.refuse_if_asked(*destination)
    settings = object_settings(request.json()) or stored.settings
    copied = service.store.copy(stored, target(*destination, settings), Preconditions.of(request.query))
    return object_resource(copied, request.base_url)


def _project(request: Request) -> str:
    if not request.query.get("project"):
        raise StorageError(400, "required", "Required parameter: project")
    return request.query["project"]


def _generation(request: Request) -> int | None:
    text = request.query.get("generation")
    return None if text is None else whole_number(text, "generation")
