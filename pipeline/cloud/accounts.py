"""What surrounds the two services: tokens for the account's own assertions, and the project."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from starlette.responses import JSONResponse, Response

from pipeline.cloud.gate import Refused, refuse_other_than_json
from pipeline.cloud.http_server import HTTP_STATUS, GatedServer, Incoming
from pipeline.cloud.json_body import read_object
from pipeline.cloud.projects import project_number
from pipeline.cloud.state import PROJECT, PROJECT_NUMBER
from pipeline.cloud.tokens import LIFETIME, Keys

if TYPE_CHECKING:
    import grpc

TOKEN_PATH = "/token"
FORM = "application/x-www-form-urlencoded"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
MOST_BYTES = 1 << 20
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
    ("GET", r"/v1/.*/allowedLocations", lambda: {"locations": [], "encodedLocations": "0x0"}),
    ("GET", r"/v[13]/projects/([^/:]+)", project_resource),
    ("GET", r"/v1/projects/([^/:]+)/services/([^/:]+)", _service),
]


class AccountsServer(GatedServer):
    """Tokens for signed assertions, and projects to those who hold a token.

    Over HTTP and, for the one call that Google's SDK makes so, over gRPC.
    """

    def __init__(self, keys: Keys, port: int = 0) -> None:
        super().__init__("accounts", keys.tokens, port)
        self.start()
        self._grpc, self.grpc_port = start_projects(keys)

    def stop(self) -> None:
        super().stop()
        self._grpc.stop(grace=None).wait()

    def needs_token(self, request: Incoming) -> bool:
        return not _asks_for_token(request)

    def respond(self, request: Incoming) -> Response:
        content = request.body.read(MOST_BYTES)
        if _asks_for_token(request):
            return JSONResponse(self._token(request, content))
        if request.method == "POST" and request.path.endswith(":testIamPermissions"):
            return JSONResponse({"permissions": _read_json(request, content).get("permissions", [])})
        return _look_up(request)

    def refusal(self, request: Incoming, refused: Refused) -> tuple[str, bytes]:
        if _asks_for_token(request):
            document: dict[str, Any] = {
                "error": refused.reason or "invalid_request",
                "error_description": refused.message,
            }
        else:
            status = HTTP_STATUS[refused.code]
            document = {"error": {"code": status, "message": refused.message, "status": refused.code}}
        return "application/json", json.dumps(document).encode()

    def _token(self, request: Incoming, content: bytes) -> dict[str, Any]:
        """RFC 7523: an assertion that the account signed is worth an access token; nothing else is."""
        kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != FORM:
            raise Refused("INVALID_ARGUMENT", f"The token endpoint takes {FORM}.", "invalid_request")
        try:
            asked = dict(parse_qsl(content.decode("ascii"), max_num_fields=10))
        except ValueError:
            raise Refused("INVALID_ARGUMENT", "The form cannot be read.", "invalid_request") from None
        if asked.get("grant_type") != JWT_BEARER:
            raise Refused("INVALID_ARGUMENT", f"Only {JWT_BEARER} is served.", "unsupported_grant_type")
        token = self.tokens.exchange(asked.get("assertion", ""))
        return {"access_token": token, "expires_in": LIFETIME, "token_type": "Bearer"}


def _asks_for_token(request: Incoming) -> bool:
    return request.method == "POST" and request.path == TOKEN_PATH


def _look_up(request: Incoming) -> Response:
    for method, pattern, answer in ANSWERS:
        match = re.fullmatch(pattern, request.path)
        if match and method == request.method:
            return JSONResponse(answer(*match.groups()))
    message = f"marquee's local cloud does not emulate {request.method} {request.path}"
    return JSONResponse({"error": {"code": 501, "message": message, "status": "UNIMPLEMENTED"}}, 501)


def _read_json(request: Incoming, content: bytes) -> dict[str, Any]:
    if not content:
        return {}
    refuse_other_than_json(request.headers.get("Content-Type"))
    try:
        return read_object(content)
    except ValueError as error:
        raise Refused("INVALID_ARGUMENT", f"Invalid JSON payload received. {error}") from None


def start_projects(keys: Keys) -> tuple[grpc.Server, int]:
    """Serve Projects.GetProject on a free loopback port."""
    import grpc
    from google.cloud.resourcemanager_v3.types import GetProjectRequest, Project

    from pipeline.cloud.token_interceptor import TokenInterceptor

    def get_project(request: GetProjectRequest, context: grpc.ServicerContext) -> Project:
        project = project_resource(request.name.removeprefix("projects/"))
        return Project(name=project["name"], project_id=project["projectId"], state=Project.State.ACTIVE)

    service, method = GET_PROJECT[1:].split("/")
    handler = grpc.unary_unary_rpc_method_handler(
        get_project, GetProjectRequest.deserialize, Project.serialize
    )
    gate = TokenInterceptor(keys.tokens)
    server = grpc.server(
        ThreadPoolExecutor(2, "projects"), interceptors=[gate], options=[("grpc.so_reuseport", 0)]
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_secure_port("127.0.0.1:0", keys.certificate.grpc_credentials())
    server.start()
    return server, port
