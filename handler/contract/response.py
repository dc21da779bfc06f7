"""Outcomes to the JSON text of an answer that the server can send. Torch-free."""

from __future__ import annotations

import base64
import dataclasses
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from handler.contract.encode import encode
from handler.contract.job import Failure, Job, Outcome, Picture
from handler.contract.picture_metadata import parameters_text
from handler.contract.problem import Problem, Refusal, brief, error_body
from handler.contract.receipt import make_receipt, origin
from handler.contract.request import Describe, Item, Pictures, Request

DONE = {
    "sent": "it is sent as it was drawn",
    "blurred": "it is sent blurred",
    "withheld": "it is not sent",
}
"""What was done with a flagged picture, by ``Safety.action``."""


@dataclass(frozen=True)
class Reply:
    """What goes back to one caller: an HTTP status, a JSON text and, with 429, a Retry-After header."""

    status: int
    text: str
    retry_after_seconds: int | None = None


def refuse(refusal: Refusal) -> Reply:
    """The reply to a request that gets no picture."""
    return Reply(refusal.status, to_json(error_body(refusal)), refusal.retry_after_seconds)


def reply(
    request: Request, outcomes: Sequence[Outcome | None], description: Mapping[str, Any], max_bytes: int
) -> Reply:
    """The reply to one request: a prediction per instance, or one error.

    ``outcomes`` has one entry per job of the request, in order.
    """
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    if failures:
        return refuse(_failed(request.items, outcomes, failures[0]))
    drawn = iter([outcome for outcome in outcomes if isinstance(outcome, Picture)])
    predictions: list[object] = []
    warnings: list[dict[str, object]] = []
    for index, item in enumerate(request.items):
        if isinstance(item, Describe):
            predictions.append(dict(description))
        else:
            pictures = [(job, next(drawn)) for job in item.jobs]
            predictions.append(_predict(pictures, description))
            warnings += [{"instance": index, **warning} for warning in _warnings(pictures)]
    answer = {"predictions": predictions, **({"warnings": warnings} if warnings else {})}
    text = to_json(predictions[0] if request.bare else answer)
    if len(text) > max_bytes:
        return refuse(_too_large(predictions, len(text), max_bytes))
    return Reply(200, text)


def to_json(value: Any) -> str:
    """Compact ASCII JSON, so that characters are bytes."""
    return json.dumps(value, separators=(",", ":"))


def _predict(drawn: Sequence[tuple[Job, Picture]], description: Mapping[str, Any]) -> object:
    """One prediction: base64 text, or an object with the image and its receipt; lists of several pictures.

    A withheld picture is null. Where the archive has a safety checker, an object has ``safety``, too.
    """
    full = drawn[0][0].response == "full"
    encoded = [_encode(job, picture, description, full) for job, picture in drawn]
    images = [one.image for one in encoded]
    if not full:
        return images if len(images) > 1 else images[0]
    verdicts = [dataclasses.asdict(picture.safety) for _, picture in drawn if picture.safety]
    whole: dict[str, object] = {"images": images, "receipts": [one.receipt for one in encoded]}
    if len(images) == 1:
        whole = {"image": images[0], "receipt": encoded[0].receipt}
    if verdicts:
        whole["safety"] = verdicts if len(images) > 1 else verdicts[0]
    warnings = _warnings(drawn)
    return {**whole, "warnings": warnings} if warnings else whole


class _Encoded(NamedTuple):
    """base64 of a picture's file (None: it is withheld), and its receipt where one was asked for."""

    image: str | None
    receipt: Mapping[str, Any] | None


def _encode(job: Job, picture: Picture, description: Mapping[str, Any], full: bool) -> _Encoded:
    started = time.perf_counter()
    file, image = None, None
    if picture.image is not None:
        text = parameters_text(origin(job, picture, description)) if job.metadata else None
        file = encode(picture.image, job.output_format, job.quality, text)
        image = base64.b64encode(file).decode("ascii")
    seconds = time.perf_counter() - started
    return _Encoded(image, make_receipt(job, picture, description, file, seconds) if full else None)


def _warnings(drawn: Sequence[tuple[Job, Picture]]) -> list[dict[str, object]]:
    """What the caller should know of an instance's pictures, which share their texts.

    Only the beginning of a text that was cut off comes back.
    """
    texts: list[dict[str, object]] = [
        {
            "field": name,
            "code": "text_cut",
            "message": f"{name} has {cut.tokens} tokens and the text encoder takes {cut.tokens_taken}:"
            f" its end was not used, from {brief(cut.removed)!r}",
        }
        for name, cut in drawn[0][1].cut_texts.items()
    ]
    return [*texts, *_flagged([picture for _, picture in drawn])]


def _flagged(pictures: Sequence[Picture]) -> Iterator[dict[str, object]]:
    """A warning for each picture that the safety checker has flagged; ``picture`` counts from 0."""
    for number, picture in enumerate(pictures):
        if picture.safety and picture.safety.flagged:
            name = f"picture {number + 1} of {len(pictures)}" if len(pictures) > 1 else "the picture"
            message = f"the safety checker flagged {name}: {DONE[picture.safety.action]}"
            yield {"picture": number, "code": "picture_flagged", "message": message}


def _failed(items: Sequence[Item], outcomes: Sequence[Outcome | None], first: Failure) -> Refusal:
    """The error of a request with failed pictures: the first failure's, with all of them named."""
    positions = [index for index, item in enumerate(items) if isinstance(item, Pictures) for _ in item.jobs]
    problems = tuple(
        Problem(index, "instance", None, "", outcome.message)
        for index, outcome in zip(positions, outcomes)
        if isinstance(outcome, Failure)
    )
    return Refusal(first.status, first.code, first.message, problems, first.retry_after_seconds)


def _too_large(predictions: Sequence[Any], size: int, max_bytes: int) -> Refusal:
    """The 413 that names the limit; on a reply that is too large TorchServe would kill the worker."""
    largest = max(len(to_json(prediction)) for prediction in predictions) + 1
    fitting = (max_bytes - 100) // largest
    cure = f"ask for at most {fitting} of these per request" if fitting else "ask for a smaller picture"
    message = f"the answer has {size} bytes; {max_bytes} can be sent: {cure}, or use jpeg or a lower quality"
    return Refusal(413, "response_too_large", message)
