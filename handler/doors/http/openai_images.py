"""OpenAI's Images API: POST /v1/images/generations, GET /v1/models; for the official client, unchanged."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from handler.contract.job import Outcome
from handler.contract.problem import Refusal
from handler.contract.request import Request as PictureRequest
from handler.contract.request import parse_body
from handler.doors.http.answer import Answer, DrawRequest, Parsed, json_answer, refuse
from handler.doors.http.desk import Call, Desk, response
from handler.doors.http.documents import PROMPT, answers, json_body
from handler.doors.http.errors import openai_error
from handler.doors.http.openai_fields import as_instance
from handler.doors.http.pictures import DrawnFiles, drawn_files
from handler.doors.http.renamed_fields import field_problem, read_object, with_their_names
from handler.doors.http.retry_seeds import RetrySeeds

TAG = "OpenAI Images"
THEIR_NAMES = {"n": "num_images_per_prompt", "output_compression": "quality", "size": "width, height"}
NO_TOKENS = {
    "input_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
    "output_tokens": 0,
    "total_tokens": 0,
}
"""OpenAI bills by these; nothing is counted here."""


class Images:
    """Reads OpenAI's bodies and makes OpenAI's answers for one model."""

    def __init__(self, model_name: str) -> None:
        self._model_name = model_name
        self._seeds = RetrySeeds()

    def generation(self, call: Call) -> Parsed:
        """The body of /v1/images/generations."""
        given = read_object(call.body, call.settings.limits)
        if isinstance(given, Refusal):
            return given
        if given.get("stream") not in (None, False):
            message = "stream is not served yet; leave it out"
            return field_problem("stream", given["stream"], "false", message)
        request = self.read(given, call)
        return request if isinstance(request, Refusal) else draw_images(request, given, call)

    def read(self, given: Mapping[str, Any], call: Call) -> PictureRequest | Refusal:
        """These fields as a request of one instance."""
        instance = as_instance(given, call.settings, self._model_name)
        if isinstance(instance, Refusal):
            return instance
        seed = partial(self._seeds.seed, call.body, call.headers)
        request = parse_body({"instances": [instance]}, call.settings, seed)
        return with_their_names(request, THEIR_NAMES) if isinstance(request, Refusal) else request


def draw_images(request: PictureRequest, given: Mapping[str, Any], call: Call) -> DrawRequest:
    """Draws the request and answers as OpenAI does."""

    def make_answer(outcomes: Sequence[Outcome | None]) -> Answer:
        drawn = drawn_files(request.jobs, outcomes, call.drawer.description)
        if isinstance(drawn, Refusal):
            return refuse_openai(with_their_names(drawn, THEIR_NAMES))
        return json_answer(images_body(drawn, given))

    return DrawRequest(request.jobs, make_answer)


def images_body(drawn: DrawnFiles, given: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI's answer; ``seed`` of each picture and the served ``quality`` go along."""
    job = drawn[0].job
    return {
        "created": int(time.time()),
        "data": [{"b64_json": one.base64, "seed": one.job.seed} for one in drawn],
        "output_format": job.output_format,
        "size": f"{job.width}x{job.height}",
        "quality": given.get("quality") or "auto",
        "background": "opaque",
        "usage": NO_TOKENS,
    }


def refuse_openai(refusal: Refusal) -> Answer:
    """An error; a picture that took too long is not asked for again by itself."""
    answer = refuse(refusal, openai_error)
    again = "true" if refusal.status in (429, 503) else "false"
    return Answer(answer.status, answer.body, headers={**answer.headers, "x-should-retry": again})


def models_body(name: str) -> dict[str, Any]:
    """GET /v1/models, for OpenAI's client ("data") and KServe's v1 ("models") in one."""
    return {"object": "list", "data": [model_body(name)], "models": [name]}


def model_body(name: str) -> dict[str, Any]:
    """One model as OpenAI shows it."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "marquee"}


def add_openai_routes(app: FastAPI, desk: Desk) -> None:
    """Adds the routes."""
    images, name = Images(desk.model_name), desk.model_name

    async def generations(http: Request) -> Response:
        """Draws n pictures for a prompt."""
        return await desk.serve(http, images.generation, openai_error)

    async def models(_http: Request) -> Response:
        """The one model."""
        return response(json_answer(models_body(name)))

    async def model(_http: Request) -> Response:
        """The model; KServe's v1 asks here whether it is ready."""
        document = {**model_body(name), "name": name, "ready": desk.ready}
        return response(json_answer(document, 200 if desk.ready else 503))

    app.add_api_route(
        "/v1/images/generations",
        generations,
        methods=["POST"],
        tags=[TAG],
        summary="Pictures for a prompt",
        response_model=None,
        responses=answers("{'created': ..., 'data': [{'b64_json': ...}]}"),
        openapi_extra=json_body(_schema(desk), {"One picture": {"prompt": PROMPT, "model": name}}),
    )
    app.add_api_route("/v1/models", models, tags=[TAG], response_model=None)
    app.add_api_route(f"/v1/models/{name}", model, tags=[TAG], response_model=None)


def _schema(desk: Desk) -> dict[str, Any]:
    most = desk.settings.limits.max_prompt_characters
    properties = {
        "prompt": {"type": "string", "maxLength": most, "pattern": r"\S"},
        "model": {"type": "string"},
        "n": {"type": "integer", "minimum": 1, "maximum": 10},
        "size": {"type": "string", "examples": ["auto"]},
        "quality": {"enum": ["low", "medium", "high", "auto"]},
        "output_format": {"enum": ["png", "jpeg", "webp"]},
        "output_compression": {"type": "integer", "minimum": 0, "maximum": 100},
        "seed": {"type": "integer", "minimum": 0},
    }
    return {"type": "object", "properties": properties, "required": ["prompt"]}
