"""Vertex AI's routes: {"instances": [...], "parameters": {...}} in, {"predictions": [...]} out."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from handler.contract.problem import Refusal
from handler.contract.request import Request as PictureRequest
from handler.contract.request import parse_body
from handler.contract.response import reply
from handler.doors.http.answer import DrawRequest, Parsed, of_reply
from handler.doors.http.desk import Call, Desk
from handler.doors.http.documents import answers, instances_body
from handler.doors.seeds import draw_seed

PREDICT = "/predictions/{model}"


def parse_instances(call: Call) -> Parsed:
    """The contract's own body."""
    request = parse_body(call.body, call.settings, draw_seed)
    return request if isinstance(request, Refusal) else own_answers(request, call)


def own_answers(request: PictureRequest, call: Call) -> DrawRequest:
    """Draws the request and answers it in the contract's own form."""
    description, most = call.drawer.description, call.settings.limits.max_response_bytes
    return DrawRequest(request.jobs, lambda drawn: of_reply(reply(request, drawn, description, most)))


def predict_routes(environment: Mapping[str, str], model_name: str) -> list[str]:
    """AIP_PREDICT_ROUTE, where it is set, and the address that TorchServe has. Raises ValueError."""
    paths = [PREDICT.format(model=model_name)]
    if given := environment.get("AIP_PREDICT_ROUTE"):
        paths.insert(0, checked_route("AIP_PREDICT_ROUTE", given))
    return list(dict.fromkeys(paths))


def checked_route(name: str, path: str) -> str:
    """A path that can be a route. Raises ValueError."""
    if not path.startswith("/") or any(character in path for character in "{}?# "):
        raise ValueError(f"{name} is {path!r}; it must be a path such as /predict")
    return path


def add_vertex_routes(app: FastAPI, desk: Desk, environment: Mapping[str, str], taken: set[str]) -> None:
    """Adds the routes, except where ``taken`` has the path already."""

    async def predict(http: Request) -> Response:
        """Draws a picture for each instance."""
        return await desk.serve(http, parse_instances)

    for path in predict_routes(environment, desk.model_name):
        if path not in taken:
            app.add_api_route(
                path,
                predict,
                methods=["POST"],
                tags=["Vertex AI"],
                summary="Pictures for instances",
                response_model=None,
                responses=answers("{'predictions': [...]}"),
                openapi_extra=instances_body(desk.settings),
            )
