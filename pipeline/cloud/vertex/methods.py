"""The table of methods the local Vertex AI answers to, derived at run time from the installed SDK.

The SDK ships no servicer classes, so a recording channel asks each client transport which gRPC paths and
request classes it uses, and the transport's REST base names the routes. So the messages always fit the SDK.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from google.cloud.location import locations_pb2
from google.iam.v1 import iam_policy_pb2
from google.longrunning import operations_pb2

_SERVICES = ("ModelService", "EndpointService", "PredictionService")
# The three mixins' stubs serialise with a method of the base class, so their request classes are named here.
_MIXIN_REQUESTS: dict[str, type[Any]] = {
    "GetOperation": operations_pb2.GetOperationRequest,
    "ListOperations": operations_pb2.ListOperationsRequest,
    "WaitOperation": operations_pb2.WaitOperationRequest,
    "CancelOperation": operations_pb2.CancelOperationRequest,
    "DeleteOperation": operations_pb2.DeleteOperationRequest,
    "GetLocation": locations_pb2.GetLocationRequest,
    "ListLocations": locations_pb2.ListLocationsRequest,
    "GetIamPolicy": iam_policy_pb2.GetIamPolicyRequest,
    "SetIamPolicy": iam_policy_pb2.SetIamPolicyRequest,
    "TestIamPermissions": iam_policy_pb2.TestIamPermissionsRequest,
}
_OTHER_RESOURCES = re.compile(r"locations/\*/(?!models/|endpoints/|operations/)\w+/")


@dataclass(frozen=True)
class Route:
    """One HTTP binding: the verb, the path as a pattern, the fields its groups fill, and the body's field."""

    verb: str
    pattern: re.Pattern[str]
    fields: tuple[str, ...]
    body: str


@dataclass(frozen=True)
class Method:
    """One remote method: ``key`` is ``Service.Name``; ``request`` is a proto-plus or protobuf class."""

    service: str
    name: str
    request: type[Any]
    streams: bool
    routes: tuple[Route, ...]

    @property
    def key(self) -> str:
        return f"{self.service.rpartition('.')[2]}.{self.name}"

    def read(self, raw: bytes) -> Any:
        """The request message in ``raw``, its wire form."""
        message = self.request()
        if hasattr(message, "_pb"):
            return self.request.deserialize(raw)
        message.ParseFromString(raw)
        return message


class _RecordingChannel:
    """Takes the place of a gRPC channel and records the methods that a transport creates."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, bool, Any]] = []

    def unary_unary(self, path: str, request_serializer: Any = None, **_: Any) -> None:
        self.rows.append((path, False, request_serializer))

    def unary_stream(self, path: str, request_serializer: Any = None, **_: Any) -> None:
        self.rows.append((path, True, request_serializer))

    def stream_stream(self, path: str, **_: Any) -> None:
        """Bidirectional methods are not served."""


def list_methods() -> list[Method]:
    """Every unary and server-streaming method of the three services and of the mixins they share."""
    found: dict[str, Method] = {}
    for service in _SERVICES:
        package = f"google.cloud.aiplatform_v1.services.{_snake(service)}.transports"
        grpc_transport = getattr(importlib.import_module(f"{package}.grpc"), f"{service}GrpcTransport")
        rest_base = getattr(importlib.import_module(f"{package}.rest_base"), f"_Base{service}RestTransport")
        for path, streams, serializer in _record(grpc_transport):
            _, full_service, name = path.split("/")
            request = _MIXIN_REQUESTS.get(name) or serializer.__self__
            found.setdefault(path, Method(full_service, name, request, streams, _routes(rest_base, name)))
    return list(found.values())


def _record(transport: type[Any]) -> list[tuple[str, bool, Any]]:
    channel = _RecordingChannel()
    instance = object.__new__(transport)
    instance._stubs = {}
    instance._logged_channel = channel
    for name, member in inspect.getmembers(transport):
        if isinstance(member, property) and name not in {"grpc_channel", "kind", "operations_client", "host"}:
            getattr(instance, name)
    return channel.rows


def _routes(rest_base: type[Any], name: str) -> tuple[Route, ...]:
    base = getattr(rest_base, f"_Base{name}", None)
    if base is None or not hasattr(base, "_get_http_options"):
        return ()
    return tuple(_served(base._get_http_options()))


def _served(options: Sequence[dict[str, str]]) -> Iterator[Route]:
    for option in options:
        if not _OTHER_RESOURCES.search(option["uri"]):
            pattern, fields = compile_template(option["uri"])
            yield Route(option["method"].upper(), pattern, fields, option.get("body", ""))


def compile_template(uri: str) -> tuple[re.Pattern[str], tuple[str, ...]]:
    """A google.api.http path template as a pattern, with the request field behind each group."""
    fields: list[str] = []
    expression = ""
    for literal, variable in _pieces(uri):
        if literal:
            expression += re.escape(literal)
            continue
        field, _, shape = variable.partition("=")
        fields.append(field)
        expression += "(" + re.escape(shape or "*").replace(r"\*", "[^/:]+") + ")"
    return re.compile(expression), tuple(fields)


def _pieces(uri: str) -> list[tuple[str, str]]:
    return re.findall(r"([^{}]+)|\{([^{}]*)\}", uri)


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
