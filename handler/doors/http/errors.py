"""Errors in the form that each kind of client expects, for every path, whether it has a route or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from handler.contract.problem import Refusal, error_body
from handler.doors.http.answer import Shape, refuse
from handler.doors.http.desk import response
from handler.doors.refusals import INTERNAL

TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
"""OpenAI's names for kinds of errors; invalid_request_error for the others below 500, server_error above."""

MAX_LISTED = 60


def kserve_error(refusal: Refusal) -> Mapping[str, Any]:
    """{"error": text} with every problem in the text."""
    problems = [problem.message for problem in refusal.problems if problem.message not in refusal.message]
    return {"error": "; ".join([refusal.message, *problems])}


def openai_error(refusal: Refusal) -> Mapping[str, Any]:
    """{"error": {"message", "type", "param", "code"}}; ``param`` is the first field that is wrong."""
    kind = TYPES.get(refusal.status, "server_error" if refusal.status >= 500 else "invalid_request_error")
    param = refusal.problems[0].field if refusal.problems else None
    param = None if param in ("body", "instance") else param
    return {"error": {"message": refusal.message, "type": kind, "param": param, "code": refusal.code}}


def shape_of(path: str) -> Shape:
    """The form of errors of a path: by its route's contract, or by that of its neighbours."""
    if path.startswith("/v2") or path.endswith(":predict"):
        return kserve_error
    return openai_error if path.startswith("/v1/") else error_body


def door_of(path: str) -> str:
    """Under which door a request is counted."""
    if path.startswith("/v2"):
        return "kserve_v2"
    if path.startswith("/v1/"):
        return "kserve_v1" if path.endswith(":predict") else "openai"
    return {"/invocations": "sagemaker", "/metrics": "metrics"}.get(path, "vertex")


def add_error_handlers(app: FastAPI) -> None:
    """Every error of the framework becomes JSON, and a 404 names the routes that there are."""

    async def refused(http: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        refusal = _refusal(app, http, error)
        answer = response(refuse(refusal, shape_of(http.url.path)))
        for name, value in (error.headers or {}).items():
            answer.headers[name] = value
        return answer

    async def failed(http: Request, _error: Exception) -> Response:
        return response(refuse(INTERNAL, shape_of(http.url.path)))

    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(Exception, failed)


def routes(app: FastAPI) -> list[str]:
    """Every route as "METHOD /path"."""
    found = [route for route in app.routes if isinstance(route, Route)]
    return sorted(
        {f"{method} {route.path}" for route in found for method in (route.methods or ()) if method != "HEAD"}
    )[:MAX_LISTED]


def _refusal(app: FastAPI, http: Request, error: HTTPException) -> Refusal:
    path = http.url.path[:200]
    if error.status_code == 404:
        return Refusal(404, "not_found", f"there is no route {path}; there are {', '.join(routes(app))}")
    if error.status_code == 405:
        allowed = [one.split()[0] for one in routes(app) if one.split()[1] == http.url.path]
        message = f"{http.method[:20]} is not allowed at {path}; allowed: {', '.join(allowed)}"
        return Refusal(405, "method_not_allowed", message)
    return Refusal(error.status_code, "http_error", str(error.detail))
