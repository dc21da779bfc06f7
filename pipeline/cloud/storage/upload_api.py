"""Uploads of the JSON API: simple, multipart and resumable.

https://cloud.google.com/storage/docs/uploads-downloads and .../performing-resumable-uploads
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from email.message import Message
from typing import Any

from pipeline.cloud.storage.errors import invalid, no_upload
from pipeline.cloud.storage.exchange import Request, Response, json_response, parse_json, whole_number
from pipeline.cloud.storage.objects import target
from pipeline.cloud.storage.records import Preconditions, StoredObject
from pipeline.cloud.storage.resources import object_checksums, object_resource, object_settings
from pipeline.cloud.storage.resumable import ContentRange, Session
from pipeline.cloud.storage.service import Service

# Google's client sends more than 8 MiB by a resumable upload; a multipart body is held in memory here.
MOST_MULTIPART_BYTES = 64 << 20


def insert_object(service: Service, request: Request, bucket: str) -> Response:
    kind = request.query.get("uploadType")
    if kind == "media":
        return _simple(service, request, bucket)
    if kind == "multipart":
        return _multipart(service, request, bucket)
    if kind == "resumable":
        return _start(service, request, bucket)
    raise invalid(f"Invalid value for uploadType: {kind}")


def _simple(service: Service, request: Request, bucket: str) -> Response:
    resource = {"name": request.query.get("name", ""), "contentType": request.headers.get("Content-Type")}
    return _store(service, request, bucket, resource, request.body.blocks())


def _multipart(service: Service, request: Request, bucket: str) -> Response:
    """One body with the resource and the content. Google's client keeps it for small content: read whole."""
    service.cut_if_asked(request, bucket, request.query.get("name", ""))
    metadata, headers, content = _two_parts(
        request.headers.get("Content-Type", ""), request.body.read(MOST_MULTIPART_BYTES)
    )
    resource = {"contentType": headers.get("content-type"), **parse_json(metadata)}
    resource.setdefault("name", request.query.get("name", ""))
    return _store(service, request, bucket, resource, [content])


def _store(
    service: Service, request: Request, bucket: str, resource: dict[str, Any], blocks: Iterable[bytes]
) -> Response:
    name = str(resource["name"])
    service.refuse_if_asked(bucket, name)
    preconditions = Preconditions.of(request.query)
    service.store.check_write(bucket, name, preconditions)
    place = target(bucket, name, object_settings(resource))
    draft = service.store.draft()
    try:
        for block in blocks:
            draft.write(block)
    except BaseException:
        draft.discard()
        raise
    said = request.checksums().merge(object_checksums(resource))
    stored = service.store.commit(draft, place, preconditions, said)
    return json_response(object_resource(stored, request.base_url))


def _two_parts(content_type: str, body: bytes) -> tuple[bytes, dict[str, str], bytes]:
    """The first part's content, the second part's headers and content, of a multipart/related body."""
    message = Message()
    message["Content-Type"] = content_type
    boundary = message.get_param("boundary")
    if not boundary:
        raise invalid("Missing multipart boundary.")
    marker = b"--" + str(boundary).encode()
    pieces = re.split(rb"(?:\A|\r?\n)" + re.escape(marker), body)
    if len(pieces) != 4 or not pieces[3].startswith(b"--"):
        raise invalid("Multipart must have exactly two parts, and an end.")
    _, metadata = _headers_and_content(pieces[1])
    headers, content = _headers_and_content(pieces[2])
    return metadata, headers, content


def _headers_and_content(part: bytes) -> tuple[dict[str, str], bytes]:
    match = re.match(rb"\r?\n(?:(.*?)\r?\n)?\r?\n", part, re.DOTALL)
    if not match:
        raise invalid("Malformed multipart body.")
    headers = {}
    for line in (match.group(1) or b"").decode("latin-1").splitlines():
        key, _, value = line.partition(":")
        headers[key.strip().lower()] = value.strip()
    return headers, part[match.end() :]


def _start(service: Service, request: Request, bucket: str) -> Response:
    resource = {
        "name": request.query.get("name", ""),
        "contentType": request.headers.get("X-Upload-Content-Type"),
        **{key: value for key, value in request.json().items() if value is not None},
    }
    name, length = str(resource["name"]), request.headers.get("X-Upload-Content-Length")
    service.refuse_if_asked(bucket, name)
    session = service.resumable.start(
        target(bucket, name, object_settings(resource)),
        Preconditions.of(request.query),
        request.checksums().merge(object_checksums(resource)),
        whole_number(length, "X-Upload-Content-Length") if length else None,
    )
    path = f"{request.base_url}/upload/storage/v1/b/{bucket}/o"
    location = f"{path}?uploadType=resumable&upload_id={session.id}"
    return Response(200, {"Location": location, "X-GUploader-UploadID": session.id})


def continue_upload(service: Service, request: Request, bucket: str) -> Response:
    upload_id = request.query.get("upload_id", "")
    session = _session_in(service, upload_id, bucket)
    text = request.headers.get("Content-Range")
    content_range = ContentRange.parse(text) if text else None
    if content_range is None or content_range.first is not None:
        service.refuse_if_asked(bucket, session.name)
        service.cut_if_asked(request, bucket, session.name)
    result = service.resumable.receive(upload_id, content_range, request.body.blocks(), request.checksums())
    if isinstance(result, StoredObject):
        return json_response(object_resource(result, request.base_url))
    return Response(308, {"Range": f"bytes=0-{result - 1}"} if result else {})


def cancel_upload(service: Service, request: Request, bucket: str) -> Response:
    service.resumable.cancel(_session_in(service, request.query.get("upload_id", ""), bucket).id)
    return Response(499)


def _session_in(service: Service, upload_id: str, bucket: str) -> Session:
    """The session of this id, if it is one of this bucket; raises StorageError 404."""
    session = service.resumable.session(upload_id)
    if session.bucket != bucket:
        raise no_upload(upload_id)
    return session
