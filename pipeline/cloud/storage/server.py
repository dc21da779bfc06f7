"""The HTTP server of the local Cloud Storage: finds who answers a request, and sends the answer."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import parse_qs, unquote

from pipeline.cloud.body import Body
from pipeline.cloud.faults import FaultBook
from pipeline.cloud.gate import Refused
from pipeline.cloud.http_server import HTTP_STATUS, GatedHandler, GatedServer
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
DRAIN_BYTES = 1 << 30  # read and forgotten of an upload that is refused, so that the refusal arrives
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


class Handler(GatedHandler):
    """One connection: HTTP/1.1 with keep-alive, bodies read and sent in blocks."""

    server_version = "marquee-storage"
    rbufsize = 1 << 18
    wbufsize = 1 << 16
    server: StorageServer

    def needs_token(self) -> bool:
        """The URI of a resumable session is a secret of its own, as at Google: it is enough to go on with it.

        https://cloud.google.com/storage/docs/resumable-uploads#session-uris
        """
        path, _, query = self.path.partition("?")
        session = self.command in ("PUT", "DELETE") and SESSION_PATH.fullmatch(path)
        return not (session and "upload_id" in parse_qs(query))

    def respond(self, body: Body) -> None:
        request = Request.parse(self.command, self.path, self.headers, body)  # type: ignore[arg-type]
        response = answer(self.server.service, request)
        if not body.drain(DRAIN_BYTES):
            self.close_connection = True
        self._send(response)

    def refusal(self, refused: Refused) -> tuple[str, bytes]:
        status = HTTP_STATUS[refused.code]
        if not JSON_PATH.match(self.path):
            code = XML_CODES[refused.code]
            response = xml_api.xml_error(StorageError(status, code, refused.message))
        else:
            reason = REASONS.get(refused.reason) or refused.reason or "forbidden"
            response = json_error(StorageError(status, reason, refused.message))
        assert isinstance(response.body, bytes)
        return response.headers["Content-Type"], response.body

    def _send(self, response: Response) -> None:
        body = response.body
        length = len(body) if isinstance(body, bytes) else response.length
        self.send_response(response.status)
        headers = {"Content-Length": str(length), **response.headers}
        if response.status in (204, 304):
            del headers["Content-Length"]
        if self.close_connection:
            headers["Connection"] = "close"
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if isinstance(body, bytes):
            self.wfile.write(body if self.command != "HEAD" else b"")
            self.wfile.flush()
            return
        self.wfile.flush()
        with body:
            if length:
                self.connection.sendfile(body, response.start, length)


class StorageServer(GatedServer):
    """Serves an ObjectStore on a loopback port; ``port`` 0 takes a free one. Close it with ``stop``."""

    def __init__(self, store: ObjectStore, faults: FaultBook, tokens: Tokens, port: int = 0) -> None:
        super().__init__("storage", tokens, Handler, port)
        self.service = Service(store, ResumableUploads(store), PartUploads(store), faults)
        self.start()

    def stop(self) -> None:
        super().stop()
        self.service.resumable.close()
