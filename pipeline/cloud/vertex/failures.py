"""How the local Vertex AI refuses a call: one exception with Google's code, in two wire forms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

# google/rpc/code.proto names the HTTP status of each code; of codes that share one the likeliest is first.
HTTP_STATUS: Mapping[str, int] = {
    "OK": 200,
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "INTERNAL": 500,
    "UNKNOWN": 500,
    "DATA_LOSS": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


class ServiceFailure(Exception):
    """A refused call. ``code`` is a google.rpc.Code name; ``reason`` arrives as the SDK exception's."""

    def __init__(self, code: str, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason

    @property
    def http_status(self) -> int:
        return HTTP_STATUS[self.code]

    def status(self) -> status_pb2.Status:
        """The google.rpc.Status that gRPC and failed operations carry."""
        status = status_pb2.Status(code=code_pb2.Code.Value(self.code), message=self.message)
        if self.reason:
            detail = any_pb2.Any()
            detail.Pack(error_details_pb2.ErrorInfo(reason=self.reason, domain="aiplatform.googleapis.com"))
            status.details.append(detail)
        return status

    def document(self) -> dict[str, Any]:
        """The JSON body that Google's REST interface answers with."""
        error: dict[str, Any] = {"code": self.http_status, "message": self.message, "status": self.code}
        if self.reason:
            error["details"] = [
                {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": self.reason,
                    "domain": "aiplatform.googleapis.com",
                }
            ]
        return {"error": error}


def code_of_http_status(status: int) -> str:
    """The code that stands for an HTTP status a container answered with."""
    if status == 403:
        return "PERMISSION_DENIED"
    for code, known in HTTP_STATUS.items():
        if known == status:
            return code
    return "INVALID_ARGUMENT" if status < 500 else "INTERNAL"


def invalid(message: str) -> ServiceFailure:
    return ServiceFailure("INVALID_ARGUMENT", message)


def refused(message: str) -> ServiceFailure:
    return ServiceFailure("FAILED_PRECONDITION", message)


def not_found(what: str, name: str) -> ServiceFailure:
    return ServiceFailure("NOT_FOUND", f"The {what} does not exist: {name}")
