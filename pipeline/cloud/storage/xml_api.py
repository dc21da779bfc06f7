"""The part of the XML API that Google's client uses: multipart uploads, and reading an object by its URL.

https://cloud.google.com/storage/docs/xml-api/overview and .../multipart-uploads
"""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from pipeline.cloud.storage.downloads import content_response
from pipeline.cloud.storage.errors import StorageError
from pipeline.cloud.storage.exchange import Request, Response, whole_number
from pipeline.cloud.storage.resources import checked_settings
from pipeline.cloud.storage.service import Service

MOST_XML_BYTES = 8 << 20  # ten thousand parts take less than one
NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
SETTING_HEADERS = {
    "Content-Type": "contentType",
    "Cache-Control": "cacheControl",
    "Content-Disposition": "contentDisposition",
    "Content-Encoding": "contentEncoding",
    "Content-Language": "contentLanguage",
    "x-goog-storage-class": "storageClass",
}
CODES = {
    "invalid": "InvalidArgument",
    "notFound": "NoSuchKey",
    "conditionNotMet": "PreconditionFailed",
    "forbidden": "AccessDenied",
}


def serve_object(service: Service, request: Request, bucket: str, name: str) -> Response:
    query = request.query
    service.refuse_if_asked(bucket, name)
    if request.method == "POST" and "uploads" in query:
        return _start(service, request, bucket, name)
    if request.method == "PUT" and "uploadId" in query:
        return _receive(service, request, bucket, name)
    if request.method == "POST" and "uploadId" in query:
        return _complete(service, request)
    if request.method == "DELETE" and "uploadId" in query:
        service.parts.cancel(query["uploadId"])
        return Response(204)
    if request.method in ("GET", "HEAD") and not query:
        return content_response(service.store, service.store.get(bucket, name), request)
    raise StorageError(501, "NotImplemented", "marquee's local cloud does not emulate this XML request.")


def _start(service: Service, request: Request, bucket: str, name: str) -> Response:
    _refuse_preconditions(request)
    upload_id = service.parts.start(bucket, name, _settings(request))
    values = {"Bucket": bucket, "Key": name, "UploadId": upload_id}
    return _xml("InitiateMultipartUploadResult", values)


def _receive(service: Service, request: Request, bucket: str, name: str) -> Response:
    service.cut_if_asked(request, bucket, name)
    number = request.query.get("partNumber", "")
    part = service.parts.receive(
        request.query["uploadId"],
        whole_number(number, "partNumber"),
        request.body.blocks(),
        request.checksums(),
    )
    return Response(200, {"ETag": part.etag, "x-goog-hash": f"crc32c={part.crc32c},md5={part.md5}"})


def _complete(service: Service, request: Request) -> Response:
    _refuse_preconditions(request)
    try:
        root = ElementTree.fromstring(request.body.read(MOST_XML_BYTES))
        parts = [(int(part[0].text or ""), part[1].text or "") for part in root]
    except (ElementTree.ParseError, ValueError, IndexError):
        raise StorageError(400, "MalformedXML", "The XML you provided was not well-formed.") from None
    stored = service.parts.complete(request.query["uploadId"], parts)
    values = {"Bucket": stored.bucket, "Key": stored.name, "ETag": f'"{stored.generation}"'}
    response = _xml("CompleteMultipartUploadResult", values)
    response.headers["x-goog-generation"] = str(stored.generation)
    response.headers["x-goog-hash"] = f"crc32c={stored.crc32c}"
    return response


def _refuse_preconditions(request: Request) -> None:
    """Refuse preconditions: XML multipart uploads take none, and the caller may rely on one."""
    if any(header.lower().startswith("x-goog-if-") for header in request.headers):
        raise StorageError(400, "InvalidArgument", "Preconditions are not supported in multipart uploads.")


def _settings(request: Request) -> dict[str, Any]:
    settings: dict[str, Any] = {
        key: request.headers[header] for header, key in SETTING_HEADERS.items() if header in request.headers
    }
    prefix = "x-goog-meta-"
    metadata = {k[len(prefix) :]: v for k, v in request.headers.items() if k.lower().startswith(prefix)}
    return checked_settings({**settings, "metadata": metadata} if metadata else settings)


def _xml(root: str, values: dict[str, str]) -> Response:
    inner = "".join(f"<{key}>{escape(value)}</{key}>" for key, value in values.items())
    text = f'<?xml version="1.0" encoding="UTF-8"?><{root} xmlns="{NAMESPACE}">{inner}</{root}>'
    return Response(200, {"Content-Type": "application/xml"}, text.encode())


def xml_error(error: StorageError) -> Response:
    code, message = CODES.get(error.reason, error.reason), escape(error.message)
    inner = f"<Code>{code}</Code><Message>{message}</Message><Details>{message}</Details>"
    text = f'<?xml version="1.0" encoding="UTF-8"?><Error>{inner}</Error>'
    return Response(error.status, {"Content-Type": "application/xml"}, text.encode())
