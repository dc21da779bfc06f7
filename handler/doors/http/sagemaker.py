"""SageMaker's route: the public sample's flat body, or our own {"instances": [...]}, at POST /invocations.

The sample: prompt, guidance_scale, num_inference_steps, height, width, results, and img, mask, strength. A
body with "instances" is our own contract's. ``Accept: image/png`` (jpeg, webp) asks for one picture's bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from handler.contract.job import Outcome
from handler.contract.problem import Refusal
from handler.contract.request import Request as PictureRequest
from handler.contract.request import parse_body
from handler.doors.http.answer import JSON, Answer, DrawRequest, Parsed, json_answer, refuse
from handler.doors.http.desk import Call, Desk
from handler.doors.http.documents import PROMPT, answers, flat_body, instances_body, json_body
from handler.doors.http.pictures import MEDIA_TYPES, drawn_files
from handler.doors.http.renamed_fields import field_problem, read_object, with_our_names, with_their_names
from handler.doors.http.vertex import own_answers
from handler.doors.seeds import draw_seed

INVOCATIONS = "/invocations"
NAMES = {"results": "num_images_per_prompt", "img": "image", "mask": "mask_image"}
"""The sample's names for our fields."""

FORMATS = {media_type: name for name, media_type in MEDIA_TYPES.items()}


def parse_invocation(call: Call) -> Parsed:
    """Either body, by whether it has "instances"."""
    given = read_object(call.body, call.settings.limits)
    if isinstance(given, Refusal):
        return given
    wanted = accepted_picture(call.headers.get("accept", ""))
    if isinstance(wanted, Refusal):
        return wanted
    if "instances" in given:
        request = parse_body(given, call.settings, draw_seed)
        if isinstance(request, Refusal):
            return request
        return _as_bytes(request, call, wanted) if wanted else own_answers(request, call)
    flat = read_flat(given, wanted, call)
    if isinstance(flat, Refusal):
        return with_their_names(flat, NAMES)
    return _as_bytes(flat, call, wanted) if wanted else _as_images(flat, call)


def read_flat(given: Mapping[str, Any], wanted: str, call: Call) -> PictureRequest | Refusal:
    """The flat body as a request of one instance."""
    fields = with_our_names(given, NAMES)
    if isinstance(fields, Refusal):
        return fields
    if wanted in MEDIA_TYPES:
        fields.setdefault("output_format", wanted)
    if "describe" in fields:
        return field_problem("describe", None, "in instances alone", "describe goes into instances")
    return parse_body({"instances": [fields]}, call.settings, draw_seed)


def accepted_picture(accept: str) -> str | Refusal:
    """The picture format that the Accept header names first; "any" for image/*, "" where JSON will do."""
    kinds = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    for kind in kinds:
        if kind in FORMATS:
            return FORMATS[kind]
        if kind == "image/*":
            return "any"
        if kind in ("", "*/*", "application/*", JSON):
            return ""
    message = f"Accept: {accept[:80]} cannot be answered; there are {JSON}, {', '.join(FORMATS)}"
    return Refusal(406, "not_acceptable", message)


def _as_bytes(request: PictureRequest, call: Call, wanted: str) -> Parsed:
    """One picture as the bytes of its file."""
    if len(request.jobs) != 1:
        message = f"Accept names a picture, which is one; the request asks for {len(request.jobs)}"
        return Refusal(406, "not_acceptable", message + ": take application/json")
    (job,) = request.jobs
    if wanted not in ("any", job.output_format):
        message = f"Accept names {MEDIA_TYPES[wanted]} and output_format is {job.output_format}; name one"
        return Refusal(406, "not_acceptable", message)

    def make_answer(outcomes: Sequence[Outcome | None]) -> Answer:
        drawn = drawn_files(request.jobs, outcomes, call.drawer.description)
        if isinstance(drawn, Refusal):
            return refuse(drawn)
        return Answer(200, drawn[0].file, drawn[0].media_type, {"x-marquee-seed": str(drawn[0].job.seed)})

    return DrawRequest(request.jobs, make_answer)


def _as_images(request: PictureRequest, call: Call) -> DrawRequest:
    """{"images": [base64, ...], "receipts": [...]}."""

    def make_answer(outcomes: Sequence[Outcome | None]) -> Answer:
        drawn = drawn_files(request.jobs, outcomes, call.drawer.description)
        if isinstance(drawn, Refusal):
            return refuse(with_their_names(drawn, NAMES))
        answer = json_answer(
            {"images": [one.base64 for one in drawn], "receipts": [one.receipt for one in drawn]}
        )
        most = call.settings.limits.max_response_bytes
        if len(answer.body) > most:
            message = f"the answer has {len(answer.body)} bytes; {most} can be sent: ask for fewer or smaller"
            return refuse(Refusal(413, "response_too_large", f"{message} pictures, or for jpeg"))
        return answer

    return DrawRequest(request.jobs, make_answer)


def add_sagemaker_routes(app: FastAPI, desk: Desk) -> None:
    """POST /invocations; GET /ping is the health route's."""
    own = instances_body(desk.settings)["requestBody"]["content"][JSON]["schema"]
    schema = {"anyOf": [flat_body(desk.settings, NAMES), own]}
    examples = {
        "The sample's body": {"prompt": PROMPT, "results": 2},
        "Our own": {"instances": [{"prompt": PROMPT, "seed": 1}]},
    }

    async def invoke(http: Request) -> Response:
        """Draws what a flat body or instances ask for."""
        return await desk.serve(http, parse_invocation)

    app.add_api_route(
        INVOCATIONS,
        invoke,
        methods=["POST"],
        tags=["SageMaker"],
        summary="Pictures for a flat body or for instances",
        response_model=None,
        responses=answers("{'images': [...], 'receipts': [...]}, {'predictions': [...]}, or a picture"),
        openapi_extra=json_body(schema, examples),
    )
