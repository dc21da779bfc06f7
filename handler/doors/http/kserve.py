"""KServe's routes: v1 (``:predict``) and the Open Inference Protocol v2 with JSON and binary tensors."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from handler import __version__
from handler.contract.fields import fields
from handler.contract.settings import Settings
from handler.doors.http.answer import json_answer
from handler.doors.http.desk import Desk, response
from handler.doors.http.documents import PROMPT, answers, instances_body, json_body
from handler.doors.http.errors import kserve_error
from handler.doors.http.kserve_infer import infer
from handler.doors.http.vertex import parse_instances

VERSION = "1"
TAG = "KServe"
TYPES = {"string": "BYTES", "integer": "INT64", "number": "FP32", "boolean": "BOOL"}
"""The datatype of a field's tensor, by the field's JSON Schema; BYTES where it says no type."""

NOT_A_TENSOR = ("loras", "response")
"""Fields that go into the request's parameters: lists, and the form of an answer that this door fixes."""


def add_kserve_routes(app: FastAPI, desk: Desk) -> None:
    """Adds both versions' routes; GET /v1/models is OpenAI's as well, in one answer."""
    _add_predictions(app, desk)
    _add_health(app, desk)
    _add_metadata(app, desk)


def _add_predictions(app: FastAPI, desk: Desk) -> None:
    name = desk.model_name

    async def predict(http: Request) -> Response:
        """Draws a picture for each instance."""
        return await desk.serve(http, parse_instances, kserve_error)

    async def infer_tensors(http: Request) -> Response:
        """Draws a picture for each element of the prompt tensor."""
        return await desk.serve(http, partial(infer, name), kserve_error)

    app.add_api_route(
        f"/v1/models/{name}:predict",
        predict,
        methods=["POST"],
        tags=[TAG],
        summary="v1: pictures for instances",
        response_model=None,
        responses=answers("{'predictions': [...]}"),
        openapi_extra=instances_body(desk.settings),
    )
    for path in (f"/v2/models/{name}", f"/v2/models/{name}/versions/{VERSION}"):
        app.add_api_route(
            f"{path}/infer",
            infer_tensors,
            methods=["POST"],
            tags=[TAG],
            summary="v2: pictures for tensors",
            response_model=None,
            responses=answers("the tensors image and seed"),
            openapi_extra=json_body({"type": "object"}, {"One picture": _example()}),
        )


def _add_health(app: FastAPI, desk: Desk) -> None:
    async def live(_http: Request) -> Response:
        """That the process is there."""
        return response(json_answer({"live": True}))

    async def ready(_http: Request) -> Response:
        """Whether a request would be served now."""
        return response(json_answer({"ready": desk.ready}, 200 if desk.ready else 503))

    async def model_ready(_http: Request) -> Response:
        """Whether a request to this model would be served now."""
        status = 200 if desk.ready else 503
        return response(json_answer({"name": desk.model_name, "ready": desk.ready}, status))

    model = f"/v2/models/{desk.model_name}"
    stopping: dict[int | str, dict[str, Any]] = {503: {"description": "the server is loading or stopping"}}
    for path, endpoint, other in (
        ("/v2/health/live", live, {}),
        ("/v2/health/ready", ready, stopping),
        (f"{model}/ready", model_ready, stopping),
        (f"{model}/versions/{VERSION}/ready", model_ready, stopping),
    ):
        app.add_api_route(path, endpoint, tags=[TAG], response_model=None, responses={**other})


def _add_metadata(app: FastAPI, desk: Desk) -> None:
    name = desk.model_name
    documents: dict[str, Any] = {
        "/v2": {"name": "marquee", "version": __version__, "extensions": ["binary_tensor_data"]},
        "/v2/models": {"models": [name]},
        f"/v2/models/{name}": metadata(name, desk.settings),
        f"/v2/models/{name}/versions/{VERSION}": metadata(name, desk.settings),
        f"/v2/models/{name}/config": {"name": name, "max_batch_size": 0, "platform": "marquee"},
    }
    for path, document in documents.items():
        app.add_api_route(path, _constant(document), tags=[TAG], summary=path, response_model=None)


def metadata(name: str, settings: Settings) -> dict[str, Any]:
    """The model's tensors: one for each field of a request, and image, seed and receipt."""
    inputs = [
        {"name": field.name, "datatype": TYPES.get(str(field.schema().get("type")), "BYTES"), "shape": [-1]}
        for field in fields(settings)
        if field.name not in NOT_A_TENSOR
    ]
    outputs = [("image", "BYTES"), ("seed", "INT64"), ("receipt", "BYTES")]
    return {
        "name": name,
        "versions": [VERSION],
        "platform": "marquee",
        "inputs": inputs,
        "outputs": [{"name": one, "datatype": kind, "shape": [-1]} for one, kind in outputs],
    }


def _constant(document: Any) -> Any:
    async def constant(_http: Request) -> Response:
        return response(json_answer(document))

    return constant


def _example() -> dict[str, Any]:
    inputs = [
        {"name": "prompt", "shape": [1], "datatype": "BYTES", "data": [PROMPT]},
        {"name": "seed", "shape": [1], "datatype": "INT64", "data": [1]},
    ]
    return {"inputs": inputs, "outputs": [{"name": "image"}]}
