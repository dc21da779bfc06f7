"""What surrounds the two services: tokens, and the project. Everybody who reaches loopback is let in."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cloud.certificates import Certificate, write_secret
from pipeline.cloud.projects import project_number
from pipeline.cloud.state import PROJECT, PROJECT_NUMBER

if TYPE_CHECKING:
    import grpc

POLL = 0.05  # seconds; how soon the server notices that it is to stop
TOKEN = {"access_token": "marquee-local-cloud", "expires_in": 3600, "token_type": "Bearer"}
GET_PROJECT = "/google.cloud.resourcemanager.v3.Projects/GetProject"


def project_resource(name: str) -> dict[str, Any]:
    """Every project exists here. The only number that leads back to a name is the default project's."""
    number = project_number(name)
    return {
        "name": f"projects/{number}",
        "projectId": PROJECT if number == PROJECT_NUMBER else name,
        "projectNumber": number,
        "state": "ACTIVE",
        "lifecycleState": "ACTIVE",
    }


def _service(project: str, service: str) -> dict[str, Any]:
    return {"name": f"projects/{project_number(project)}/services/{service}", "state": "ENABLED"}


# A boundary of 0x0 tells google-auth that the account may be used from everywhere.
ANSWERS: list[tuple[str, str, Callable[..., dict[str, Any]]]] = [
    ("POST", r"/token", lambda: TOKEN),
    ("GET", r"/v1/.*/allowedLocations", lambda: {"locations": [], "encodedLocations": "0x0"}),
    ("GET", r"/v[13]/projects/([^/:]+)", project_resource),
    ("GET", r"/v1/projects/([^/:]+)/services/([^/:]+)", _service),
]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _serve(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        if self.command == "POST" and path.endswith(":testIamPermissions"):
            self._send(200, {"permissions": json.loads(content or b"{}").get("permissions", [])})
            return
        for method, pattern, answer in ANSWERS:
            match = re.fullmatch(pattern, path)
            if match and method == self.command:
                self._send(200, answer(*match.groups()))
                return
        message = f"marquee's local cloud does not emulate {self.command} {path}"
        self._send(501, {"error": {"code": 501, "message": message, "status": "UNIMPLEMENTED"}})

    do_GET = do_POST = _serve

    def _send(self, status: int, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


class AccountsServer(ThreadingHTTPServer):
    """Tokens and projects over HTTP and, for the one call that Google's SDK makes so, over gRPC."""

    daemon_threads = True

    def __init__(self, certificate: Certificate, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        threading.Thread(target=self.serve_forever, args=(POLL,), name="accounts", daemon=True).start()
        self._grpc, self.grpc_port = start_projects(certificate)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        self._grpc.stop(grace=None).wait()


def start_projects(certificate: Certificate) -> tuple[grpc.Server, int]:
    """Serve Projects.GetProject on a free loopback port."""
    import grpc
    from google.cloud.resourcemanager_v3.types import GetProjectRequest, Project

    def get_project(request: GetProjectRequest, context: grpc.ServicerContext) -> Project:
        project = project_resource(request.name.removeprefix("projects/"))
        return Project(name=project["name"], project_id=project["projectId"], state=Project.State.ACTIVE)

    service, method = GET_PROJECT[1:].split("/")
    handler = grpc.unary_unary_rpc_method_handler(
        get_project, GetProjectRequest.deserialize, Project.serialize
    )
    server = grpc.server(ThreadPoolExecutor(2, "projects"))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_secure_port("127.0.0.1:0", certificate.grpc_credentials())
    server.start()
    return server, port


def write_credentials(path: Path, token_uri: str) -> None:
    """A service account's key file, whose tokens are asked of this machine alone. Keeps an existing key."""
    key = json.loads(path.read_text())["private_key"] if path.exists() else _new_key()
    email = f"marquee@{PROJECT}.iam.gserviceaccount.com"
    account = {
        "type": "service_account",
        "project_id": PROJECT,
        "private_key_id": "local",
        "private_key": key,
        "client_email": email,
        "client_id": PROJECT_NUMBER,
        "token_uri": token_uri,
        "universe_domain": "googleapis.com",
    }
    write_secret(path, json.dumps(account, indent=1).encode())


def _new_key() -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    return (
        rsa.generate_private_key(public_exponent=65537, key_size=2048)
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        .decode()
    )
