"""The smoke test before traffic moves: the new model must draw a picture and report its weights' digest.

It ends in one of four ways. Proved: it returns a Proof. Unproven: no request reached the model in time.
Unknown: the network failed or the server was busy. Failed: the container failed, or its picture is wrong.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from pipeline.client.errors import PredictionError, ServerUnreachable
from pipeline.client.predictions import Prediction, parse_predictions
from pipeline.client.request_body import asked_pictures, request_body
from pipeline.client.retries import Patience
from pipeline.client.vertex import PATIENCE, Reply, VertexEndpoint
from pipeline.deploy.answers import translating_google_errors
from pipeline.deploy.archive_file import ArchiveFile
from pipeline.deploy.config import Smoke
from pipeline.deploy.connection import Connection
from pipeline.deploy.smoke_picture import Expected, check_picture
from pipeline.deploy.survey import find_endpoint
from pipeline.errors import MarqueeError
from pipeline.progress import Progress

if TYPE_CHECKING:
    from google.cloud.aiplatform_v1.types import Endpoint

_NOTE_EVERY = 50
_MOST_LISTED = 20
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 5.0
# The model is busy, is starting, or a deadline passed: none of these is a failure of the model.
_BUSY = (408, 429, 502, 503, 504)
_HANDLER_RAISED = "InternalServerException"  # TorchServe's type for an exception in the handler
# The service refused the request for its content or its sender; the model has not failed.
_REFUSED = (400, 401, 403, 413)


class Unproven(MarqueeError):
    """No request reached the new model in time. Everything stays as it is; the next run continues."""


class Unknown(MarqueeError):
    """No answer, or a busy server: whether the new model works is unknown. Everything stays as it is."""


class SmokeFailed(MarqueeError):
    """The new model's container failed, or its picture is not right."""


@dataclass(frozen=True)
class Proof:
    """The picture, the deployed model that drew it, and the number of requests that were sent."""

    picture: Prediction
    deployed_model_id: str
    weights_digest: str
    requests: int


def open_endpoint(
    connection: Connection, endpoint: Endpoint, patience: Patience = PATIENCE
) -> VertexEndpoint:
    """A client of an endpoint, at its dedicated host name or at the region's shared one."""
    dedicated = endpoint.dedicated_endpoint_dns if endpoint.dedicated_endpoint_enabled else ""
    host = dedicated or connection.predict_host
    return VertexEndpoint(connection.web, host, endpoint.name, patience, bool(dedicated))


def find_client(connection: Connection, endpoint_id: str, patience: Patience = PATIENCE) -> VertexEndpoint:
    """A client of the endpoint with this name; raises MarqueeError if it does not exist."""
    with translating_google_errors("looking for the endpoint"):
        endpoint = find_endpoint(connection, endpoint_id)
    if endpoint is None:
        raise MarqueeError(
            f"there is no endpoint {endpoint_id} in {connection.region}; {_those_there_are(connection)}",
            cure="marquee status",
        )
    return open_endpoint(connection, endpoint, patience)


def _those_there_are(connection: Connection) -> str:
    """The region's endpoints in words, by the last part of their names; at most _MOST_LISTED of them."""
    with translating_google_errors("listing the endpoints"):
        found = islice(connection.endpoints.list_endpoints(parent=connection.location), _MOST_LISTED + 1)
        names = sorted(endpoint.name.rpartition("/")[2] for endpoint in found)
    more = ", and more" if len(names) > _MOST_LISTED else ""
    return "it has " + ", ".join(names[:_MOST_LISTED]) + more if names else "it has none"


@dataclass
class Tally:
    """The results of the requests of one smoke test so far."""

    requests: int = 0
    by_others: int = 0
    trouble: MarqueeError | None = field(default=None)


def prove(
    endpoint: VertexEndpoint,
    smoke: Smoke,
    archive: ArchiveFile,
    deployed_id: str,
    progress: Progress,
    expected: Expected | None = None,
) -> Proof:
    """Send requests until ``deployed_id`` has answered. Raises Unproven, Unknown or SmokeFailed.

    Beside models in service the new one has a small share, and the endpoint chooses by chance which model
    answers. Answers of other models are not checked.
    """
    end = time.monotonic() + smoke.seconds
    tally, pause = Tally(), _FIRST_PAUSE_SECONDS
    while (left := end - time.monotonic()) > 0:
        body = _body(smoke, archive, first=tally.requests == 0)
        tally.requests += 1
        reply = _ask(endpoint, body, max(1.0, left), tally)
        if reply is not None and reply.served_by == deployed_id and not _is_busy(reply):
            return _check(reply, body, archive, expected, tally.requests)
        if _count(reply, deployed_id, tally):
            pause = _FIRST_PAUSE_SECONDS
        else:
            time.sleep(min(pause, max(0.0, end - time.monotonic())))
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
        if tally.requests % _NOTE_EVERY == 0:
            progress.note(f"{tally.requests} smoke requests; the new model has not got one yet")
    raise _undecided(smoke, deployed_id, tally)


def _body(smoke: Smoke, archive: ArchiveFile, first: bool) -> dict[str, Any]:
    """The smoke request. Repetitions have two steps at most, since most of them reach other models."""
    instance: dict[str, Any] = {"prompt": smoke.prompt, "seed": smoke.seed, "response": "full"}
    if not first and smoke.expected is None:
        instance["num_inference_steps"] = 1 if archive.limits.get("max_num_inference_steps") == 1 else 2
    return request_body([instance])


def _ask(endpoint: VertexEndpoint, body: dict[str, Any], seconds: float, tally: Tally) -> Reply | None:
    """Send one request; None when no answer came."""
    try:
        return endpoint.exchange(body, seconds)
    except ServerUnreachable as error:
        tally.trouble = error
        return None


def _count(reply: Reply | None, deployed_id: str, tally: Tally) -> bool:
    """Count an answer that proves nothing. Returns whether the next request may follow at once.

    Raises Unknown when another request is pointless, because the service refuses this one before any model
    gets it.
    """
    if reply is None:
        return False
    if reply.served_by and reply.served_by != deployed_id:
        tally.by_others += 1
        tally.trouble = None
        return True
    tally.trouble = _error_of(reply)
    if not reply.served_by and reply.status in _REFUSED:
        raise _unknown(deployed_id, tally.trouble)
    return False


def _is_busy(reply: Reply) -> bool:
    """Whether the server is busy. TorchServe's 503 for an exception in the handler is a failure instead."""
    error = _error_of(reply)
    return error is not None and error.status in _BUSY and _HANDLER_RAISED not in reply.text


def _error_of(reply: Reply) -> PredictionError | None:
    """The error that an answer stands for."""
    try:
        reply.document()
    except PredictionError as error:
        return error
    return None


def _undecided(smoke: Smoke, deployed_id: str, tally: Tally) -> MarqueeError:
    if tally.by_others and tally.trouble is None:
        return Unproven(
            f"deployed model {deployed_id} is unproven: other models answered all {tally.by_others} requests "
            f"in {smoke.seconds} s; everything stays as it is",
            cure="run it again, or with a larger share or more time: --set smoke.percent=10, "
            "--set smoke.seconds=600",
        )
    return _unknown(deployed_id, tally.trouble)


def _unknown(deployed_id: str, trouble: MarqueeError | None) -> Unknown:
    return Unknown(
        f"it is unknown whether deployed model {deployed_id} works: {trouble or 'no answer in time'}; "
        "everything stays as it is",
        cure="run it again when the service answers: it continues where it stopped",
    )


def _check(
    reply: Reply, body: dict[str, Any], archive: ArchiveFile, expected: Expected | None, requests: int
) -> Proof:
    """Check an answer of the new model and return the proof; raises SmokeFailed."""
    try:
        # The request names neither size nor format, so the picture must have the archive's default ones.
        asked = asked_pictures({**body, "parameters": {**archive.defaults, **body["parameters"]}})
        (picture,) = parse_predictions(reply.document(), asked)
    except PredictionError as error:
        if error.status in _REFUSED:
            raise _unknown(reply.served_by, error) from error
        raise SmokeFailed(f"the smoke prediction failed: {error}", cure=error.cure) from error
    loaded = str(picture.receipt.get("weights_digest"))
    if loaded != archive.weights_digest:
        raise SmokeFailed(
            f"the deployed model drew with weights {loaded[:12]}, but the archive holds "
            f"{archive.weights_digest[:12]}: it does not serve what was uploaded",
            cure="build the archive again with `marquee build`; its handler loads what it carries",
        )
    if problem := check_picture(picture, expected):
        raise SmokeFailed(
            problem, cure="look at the picture; the same seed and archive give the same picture"
        )
    return Proof(picture, reply.served_by, loaded, requests)
