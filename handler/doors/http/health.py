"""Whether the server is there and ready, at the address that each platform asks."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from handler.doors.http.answer import json_answer
from handler.doors.http.desk import Desk, response
from handler.doors.http.vertex import checked_route

PING = "/ping"


def health_paths(environment: Mapping[str, str]) -> list[str]:
    """SageMaker's and TorchServe's /ping, and AIP_HEALTH_ROUTE where it is set. Raises ValueError."""
    given = environment.get("AIP_HEALTH_ROUTE")
    return [PING] if not given else list(dict.fromkeys([PING, checked_route("AIP_HEALTH_ROUTE", given)]))


def add_health_routes(app: FastAPI, desk: Desk, environment: Mapping[str, str]) -> None:
    """200 from the warm-up picture on until the server stops, else 503."""

    async def ping(_http: Request) -> Response:
        """Whether a request would be served now."""
        state = "Healthy" if desk.ready else "Stopping" if desk.draining else "Loading"
        return response(json_answer({"status": state}, 200 if desk.ready else 503))

    async def alive(_http: Request) -> Response:
        """That the process is there, as KServe v1 asks."""
        return response(json_answer({"status": "alive"}))

    for path in health_paths(environment):
        app.add_api_route(
            path,
            ping,
            tags=["Health"],
            summary="Ready?",
            response_model=None,
            responses={503: {"description": "the server is loading or stopping"}},
        )
    app.add_api_route("/", alive, tags=["Health"], summary="Alive?", response_model=None)
