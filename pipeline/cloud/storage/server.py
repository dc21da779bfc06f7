"""The HTTP server of the local Cloud Storage: finds who answers a request, and sends the answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import BinaryIO
from urllib.parse import parse_qs, unquote

from starlette.responses import Response as HttpResponse
from starlette.responses import StreamingResponse

from pipeline.cloud.body import BLOCK
from pipeline.cloud.faults import FaultBook
from pipeline.cloud.gate import Refused
from pipeline.cloud.http_server import HTTP_STATUS, GatedServer, Incoming
from pipeline.cloud.storage import json_api, upload_api, xml_api
from pipeline.cloud.storage.errors import StorageError
from pipeline.cloud.storage.exchange import Request, Response, json_response
from pipeline.cloud.storage.objects import ObjectStore
from pipeline.cloud.storage.parts import PartUploads
from pipeline.cloud.storage.resumable import ResumableUploads
from pipeline.cloud.storage.service import Service
from pipeline.cloud.tokens import Tokens

BUCKET = r"/storage/v1/b/(?P<bucket>[^/]+)"
OBJECT = BUCKET + r"/o/(?P<name>[^/]+)"
DESTINATION = r"/b/(?P<to_bucket>[^/]+)/o/(?P<to_name>[^/]+)"
ROUTES: list[tuple[str, str, Callable[..., Response]]] = [
    ("GET", r"/storage/v1/b", json_api.list_buckets),
    ("POST", r"/storage/v1/b", json_api.insert_bucket),
    ("GET", BUCKET, json_api.get_bucket),
    ("PATCH", BUCKET, json_api.patch_bucket),
    ("PUT", BUCKET, json_api.patch_bucket),
    ("DELETE", BUCKET, json_api.delete_bucket),
    ("GET", BUCKET + "/iam/testPermissions", json_api.test_permissions),
    ("GET", BUCKET + "/iam", json_api.get_policy),
    ("PUT", BUCKET + "/iam", json_api.set_policy),
    ("GET", r"/storage/v1/projects/(?P<project>[^/]+)/serviceAccount", json_api.service_account),
    ("GET", BUCKET + "/o", json_api.list_objects),
    ("GET", r"(?:/download)?" + OBJECT, json_api.get_object),
    ("PATCH", OBJECT, json_api.patch_object),
    ("PUT", OBJECT, json_api.update_object),
    ("DELETE", OBJECT, json_api.delete_object),
    ("POST", OBJECT + "/compose", json_api.compose),
    ("POST", OBJECT + "/rewriteTo" + DESTINATION, json_api.rewrite),
    ("POST", OBJECT + "/copyTo" + DESTINATION, json_api.copy),
    ("POST", "/upload" + BUCKET + "/o", upload_api.insert_object),
    ("PUT", "/upload" + BUCKET + "/o", upload_api.continue_upload),
    ("DELETE", "/upload" + BUCKET + "/o", upload_api.cancel_upload),
]
COMPILED = [(method, re.compile(pattern), function) for method, pattern, function in ROUTES]
JSON_PATH = re.compile(r"(/upload|/download|/batch)?/storage/v1(/|$)")
SESSION_PATH = re.compile(f"/upload{BUCKET}/o")
CUSTOMER_KEY = "x-goog-encryption-key"
# What the JSON API calls the reasons of a refusal at the gate; and the XML API its codes.
REASONS = {
    "CREDENTIALS_MISSING": "required",
    "ACCESS_TOKEN_TYPE_UNSUPPORTED": "authError",
    "ACCESS_TOKEN_EXPIRED": "authError",
}
XML_CODES = {
    "INVALID_ARGUMENT": "InvalidArgument",
    "UNAUTHENTICATED": "AuthenticationRequired",
    "PERMISSION_DENIED": "AccessDenied",
    "INTERNAL": "InternalError",
}


def answer(service: Service, request: Request) -> Response:
    """Do what a request asks. Refusals become answers in the dialect of the request."""
    if not JSON_PATH.match(request.path):
        return _answer_xml(service, request)
    try:
        return _answer_json(service, request)
    except StorageError as error:
        return Response(304) if error.status == 304 else json_error(error)


def json_error(error: StorageError) -> Response:
    detail = {"message": error.message, "domain": "global", "reason": error.reason}
    body = {"code": error.status, "message": error.message, "errors": [detail]}
    return json_response({"error": body}, error.status)


def _answer_json(service: Service, request: Request) -> Response:
    if CUSTOMER_KEY in request.headers:
        raise StorageError(501, "notImplemented", "marquee's local cloud does not emulate customer keys.")
    for method, pattern, function in COMPILED:
        match = pattern.fullmatch(request.path)
        if match and method == request.method:
            names = {key: unquote(value) for key, value in match.groupdict().items()}
            if not request.path.startswith("/upload") and "bucket" in names:
                service.refuse_if_asked(names["bucket"], names.get("name", ""))
            return function(service, request, **names)
    raise StorageError(
        501, "notImplemented", f"marquee's local cloud does not emulate {request.method} {request.path}"
    )


def _answer_xml(service: Service, request: Request) -> Response:
    host = request.headers.get("Host", "")
    path = unquote(request.path).lstrip("/")
    if host.endswith(".storage.googleapis.com"):
        path = f"{host.removesuffix('.storage.googleapis.com')}/{path}"
    bucket, _, name = path.partition("/")
    try:
        if not name:
            raise StorageError(501, "NotImplemented", "marquee's local cloud lists by the JSON API alone.")
        return xml_api.serve_object(service, request, bucket, name)
    except StorageError as error:
        return xml_api.xml_error(error)


class StorageServer(GatedServer):
    """Serves an ObjectStore on a loopback port; ``port`` 0 takes a free one. Close it with ``stop``."""

    def __init__(self, store: ObjectStore, faults: FaultBook, tokens: Tokens, port: int = 0) -> None:
        super().__init__("storage", tokens, port)
        self.service = Service(store, ResumableUploads(store), PartUploads(store), faults)
        self.start()

    def stop(self) -> None:
        super().stop()
        self.service.resumable.close()

    def needs_token(self, request: Incoming) -> bool:
        """The URI of a resumable session is a secret of its own, as at Google: it is enough to go on with it.

        https://cloud.google.com/storage/docs/resumable-uploads#session-uris
        """
        session = request.method in ("PUT", "DELETE") and SESSION_PATH.fullmatch(request.path)
        return not (session and "upload_id" in parse_qs(request.query))

    def respond(self, request: Incoming) -> HttpResponse:
        return _http_response(answer(self.service, Request.of(request)))

    def refusal(self, request: Incoming, refused: Refused) -> tuple[str, bytes]:
        status = HTTP_STATUS[refused.code]
        if not JSON_PATH.match(request.path):
            code = XML_CODES[refused.code]
            response = xml_api.xml_error(StorageError(status, code, refused.message))
        else:
            reason = REASONS.get(refused.reason) or refused.reason or "forbidden"
            response = json_error(StorageError(status, reason, refused.message))
        assert isinstance(response.body, bytes)
        return response.headers["Content-Type"], response.body


def _http_response(response: Response) -> HttpResponse:
    body = response.body
    if isinstance(body, bytes):
        return HttpResponse(body, response.status, response.headers)
    headers = {"Content-Length": str(response.length), **response.headers}
    return StreamingResponse(_part_of(body, response.start, response.length), response.status, headers)


def _part_of(file: BinaryIO, start: int, length: int) -> Iterator[bytes]:
    with file:
        file.seek(start)
        while length and (block := file.read(min(BLOCK, length))):
            length -= len(block)
            yield block
