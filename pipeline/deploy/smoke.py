"""The proof before traffic moves: the new model draws a picture and names its weights."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.client.errors import PredictionError
from pipeline.client.predictions import Prediction, parse_predictions
from pipeline.client.request_body import request_body, sent_seeds
from pipeline.client.retries import Patience, with_retries
from pipeline.client.vertex import PATIENCE, Reply, VertexEndpoint
from pipeline.deploy.answers import explained
from pipeline.deploy.archive_file import ArchiveFile
from pipeline.deploy.config import Smoke
from pipeline.deploy.connection import Connection
from pipeline.deploy.survey import find_endpoint
from pipeline.errors import MarqueeError
from pipeline.progress import Progress

if TYPE_CHECKING:
    from google.cloud.aiplatform_v1.types import Endpoint

# Mean difference per channel, of 255: JPEG and rounding stay below, another picture is far above.
_LARGEST_DIFFERENCE = 12.0
_SMALLEST_SPREAD = 2.0
_NOTE_EVERY = 50


@dataclass(frozen=True)
class Proof:
    """The picture that came back, from which deployed model, after how many requests."""

    picture: Prediction
    deployed_model_id: str
    weights_digest: str
    requests: int


def open_endpoint(
    connection: Connection, endpoint: Endpoint, patience: Patience = PATIENCE
) -> VertexEndpoint:
    """A client of an endpoint at its dedicated name, or the region's shared one."""
    dedicated = endpoint.dedicated_endpoint_dns if endpoint.dedicated_endpoint_enabled else ""
    return VertexEndpoint(connection.web, dedicated or connection.predict_host, endpoint.name, patience)


def find_client(connection: Connection, endpoint_id: str, patience: Patience = PATIENCE) -> VertexEndpoint:
    """A client of the endpoint of this name; raises MarqueeError when there is none."""
    with explained("looking for the endpoint"):
        endpoint = find_endpoint(connection, endpoint_id)
    if endpoint is None:
        raise MarqueeError(
            f"there is no endpoint {endpoint_id} in {connection.region}", cure="marquee status"
        )
    return open_endpoint(connection, endpoint, patience)


def prove(
    endpoint: VertexEndpoint, smoke: Smoke, archive: ArchiveFile, deployed_id: str, progress: Progress
) -> Proof:
    """Ask until ``deployed_id`` has answered. Raises MarqueeError when its picture or weights are not right.

    Beside a model in service the new one has 1 % of the traffic: others' answers are not looked at.
    """
    end = time.monotonic() + smoke.seconds
    requests = 0
    while time.monotonic() < end:
        body = _body(smoke, first=requests == 0)
        requests += 1
        reply = _ask(endpoint, body, end - time.monotonic())
        if reply.served_by == deployed_id or (reply.status != 200 and not reply.served_by):
            return _check(reply, body, smoke, archive, requests)
        if requests % _NOTE_EVERY == 0:
            progress.note(f"{requests} smoke requests; the new model has not had its turn yet")
    raise MarqueeError(
        f"deployed model {deployed_id} answered none of {requests} requests in {smoke.seconds} s",
        cure="give it longer: smoke.seconds in deploy.yaml",
    )


def _body(smoke: Smoke, first: bool) -> dict[str, Any]:
    """The fixed request. Repetitions, which mostly reach the old model, take two steps."""
    instance: dict[str, Any] = {"prompt": smoke.prompt, "seed": smoke.seed, "response": "full"}
    if not first and smoke.expected is None:
        instance["num_inference_steps"] = 2
    return request_body([instance])


def _ask(endpoint: VertexEndpoint, body: dict[str, Any], seconds: float) -> Reply:
    patience = Patience(deadline_seconds=max(1.0, seconds), attempts=30)
    return with_retries(lambda left: _served(endpoint.exchange(body, left)), patience)


def _served(reply: Reply) -> Reply:
    """The reply, unless no model was reached for a while: that is worth another try (PredictionError)."""
    if reply.status in (429, 502, 503) and not reply.served_by:
        reply.document()
    return reply


def _check(reply: Reply, body: dict[str, Any], smoke: Smoke, archive: ArchiveFile, requests: int) -> Proof:
    try:
        (picture,) = parse_predictions(reply.document(), sent_seeds(body))
    except PredictionError as error:
        raise MarqueeError(f"the smoke prediction failed: {error}", cure=error.cure) from error
    loaded = str(picture.receipt.get("weights_digest"))
    if loaded != archive.weights_digest:
        raise MarqueeError(
            f"the deployed model drew with weights {loaded[:12]}, but the archive holds "
            f"{archive.weights_digest[:12]}: it does not serve what was uploaded",
            cure="build the archive again with `marquee build`; its handler loads what it carries",
        )
    _check_picture(picture, smoke)
    return Proof(picture, reply.served_by, loaded, requests)


def _check_picture(prediction: Prediction, smoke: Smoke) -> None:
    """Not one flat colour, and like the expected picture where one is given."""
    from PIL import Image, ImageChops, ImageStat

    with Image.open(io.BytesIO(prediction.data)) as encoded:
        picture = encoded.convert("RGB")
    if max(ImageStat.Stat(picture).stddev) < _SMALLEST_SPREAD:
        raise MarqueeError("the smoke picture is one flat colour: NaNs, a safety filter or broken weights")
    if smoke.expected is None:
        return
    with Image.open(Path(smoke.expected)) as encoded:
        expected = encoded.convert("RGB")
    if expected.size != picture.size:
        raise MarqueeError(f"the smoke picture is {picture.size} pixels, the expected one {expected.size}")
    difference = max(ImageStat.Stat(ImageChops.difference(picture, expected)).mean)
    if difference > _LARGEST_DIFFERENCE:
        raise MarqueeError(
            f"the smoke picture differs from {smoke.expected} by {difference:.1f} of 255 on average",
            cure="look at both; the same seed and archive give the same picture",
        )
