"""The HTTP server of the local Cloud Storage: finds who answers a request, and sends the answer."""

from __future__ import annotations

import re
import socket
import struct
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

from pipeline.cloud.faults import FaultBook
from pipeline.cloud.storage import json_api, upload_api, xml_api
from pipeline.cloud.storage.errors import StorageError
from pipeline.cloud.storage.exchange import Body, ConnectionCut, Request, Response, json_response
from pipeline.cloud.storage.objects import ObjectStore
from pipeline.cloud.storage.parts import PartUploads
from pipeline.cloud.storage.resumable import ResumableUploads
from pipeline.cloud.storage.service import Service

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
POLL = 0.05  # seconds; how soon a server notices that it is to stop
CUSTOMER_KEY = "x-goog-encryption-key"


def answer(service: Service, request: Request) -> Response:
    """Do what a request asks. Refusals become answers in the dialect of the request."""
    if not re.match(r"(/upload|/download|/batch)?/storage/v1(/|$)", request.path):
        return _answer_xml(service, request)
    try:
        return _answer_json(service, request)
    except StorageError as error:
        detail = {"message": error.message, "domain": "global", "reason": error.reason}
        body = {"code": error.status, "message": error.message, "errors": [detail]}
        return Response(304) if error.status == 304 else json_response({"error": body}, error.status)


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


class Handler(BaseHTTPRequestHandler):
    """One connection: HTTP/1.1 with keep-alive, bodies read and sent in blocks."""

    protocol_version = "HTTP/1.1"
    server_version = "marquee-storage"
    disable_nagle_algorithm = True
    rbufsize = 1 << 18
    wbufsize = 1 << 16
    server: StorageServer

    def _serve(self) -> None:
        chunked = "chunked" in self.headers.get("Transfer-Encoding", "")
        body = Body(self.rfile, None if chunked else int(self.headers.get("Content-Length") or 0))  # type: ignore[arg-type]
        request = Request.parse(self.command, self.path, self.headers, body)  # type: ignore[arg-type]
        try:
            response = answer(self.server.service, request)
            body.drain()
            self._send(response)
        except ConnectionCut:
            self._reset()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

    def _send(self, response: Response) -> None:
        body = response.body
        length = len(body) if isinstance(body, bytes) else response.length
        self.send_response(response.status)
        headers = {"Content-Length": str(length), **response.headers}
        if response.status in (204, 304):
            del headers["Content-Length"]
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if isinstance(body, bytes):
            self.wfile.write(body)
            self.wfile.flush()
            return
        self.wfile.flush()
        with body:
            if length:
                self.connection.sendfile(body, response.start, length)

    def _reset(self) -> None:
        """End the connection as a broken network does: with a reset, not a goodbye."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.server.drop_request(self.connection)

    def log_message(self, format: str, *args: object) -> None:
        """Silent: the log is for what goes wrong."""


class StorageServer(ThreadingHTTPServer):
    """Serves an ObjectStore on a loopback port; ``port`` 0 takes a free one. Close it with ``stop``."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, store: ObjectStore, faults: FaultBook, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.service = Service(store, ResumableUploads(store), PartUploads(store), faults)
        self._thread = threading.Thread(target=self.serve_forever, args=(POLL,), name="storage", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def drop_request(self, connection: socket.socket) -> None:
        """Close without shutdown: a shutdown would send a polite end first."""
        connection.close()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        self.service.resumable.close()
