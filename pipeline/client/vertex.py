"""The client of a Vertex AI endpoint.

It calls rawPredict, which keeps numbers exact and names the deployed model that answered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from pipeline.client.answers import document_of
from pipeline.client.errors import BadAnswer, PayloadTooLarge, ServerUnreachable
from pipeline.client.exchange import Answer, post
from pipeline.client.predictions import Prediction, parse_predictions
from pipeline.client.request_body import Instance, asked_pictures, encoded, request_body
from pipeline.client.retries import Patience, with_retries
from pipeline.errors import MarqueeError
from pipeline.rules.table import table

# A model that scales up from zero answers 429 for minutes, and every request meanwhile is dropped.
PATIENCE = Patience(deadline_seconds=600.0, attempts=30)
# Above the 10 MB that a dedicated endpoint lets through (pipeline/rules/rules.yaml).
MOST_ANSWER_BYTES = 16 << 20
# Where a token may go: Google's own hosts, and the local cloud on this machine.
_TOKEN_HOSTS = re.compile(r"([a-z0-9-]+\.)+(googleapis\.com|vertexai\.goog)|localhost|127\.0\.0\.1")


@dataclass(frozen=True)
class Reply:
    """What an endpoint answered, and the deployed model it came from (empty when none was reached)."""

    status: int
    text: str
    headers: httpx.Headers
    served_by: str

    def document(self) -> Any:
        """The answer's JSON; raises the PredictionError that its status stands for."""
        return document_of(Answer(self.status, self.text.encode("utf-8", "surrogatepass"), self.headers))


@dataclass(frozen=True)
class VertexEndpoint:
    """An endpoint by its host and resource name (projects/P/locations/R/endpoints/E).

    ``web`` carries the credentials and stays the caller's to close; ``of`` makes one of the SDK's Endpoint.
    ``dedicated`` says which limit on a request's bytes holds (pipeline/rules/rules.yaml).
    """

    web: httpx.Client
    host: str
    name: str
    patience: Patience = PATIENCE
    dedicated: bool = True

    @classmethod
    def of(
        cls, endpoint: Any, web: httpx.Client | None = None, patience: Patience = PATIENCE
    ) -> VertexEndpoint:
        """The endpoint behind an ``aiplatform.Endpoint``, asked with that object's own credentials."""
        resource = endpoint.gca_resource
        dedicated = resource.dedicated_endpoint_dns if resource.dedicated_endpoint_enabled else ""
        host = dedicated or f"{endpoint.location}-aiplatform.googleapis.com"
        web = web or httpx.Client(auth=token_auth(endpoint.credentials))
        return cls(web, host, endpoint.resource_name, patience, bool(dedicated))

    def predict(
        self, instances: Sequence[Instance | str], parameters: Instance | None = None
    ) -> list[Prediction]:
        """The checked pictures of each instance, in order; see ``pipeline.client.Client.predict``.

        Raises PayloadTooLarge, before anything is sent, for a body that the endpoint would refuse.
        """
        body = request_body(instances, parameters)
        check_size(len(encoded(body)), self.dedicated)
        document = with_retries(lambda seconds: self.exchange(body, seconds).document(), self.patience)
        return parse_predictions(document, asked_pictures(body))

    def describe(self) -> tuple[dict[str, Any], str]:
        """The description that the answering model gives of itself, and its deployed model id."""
        body = {"instances": [{"describe": True}]}

        def ask(seconds: float) -> tuple[Any, str]:
            reply = self.exchange(body, seconds)
            return reply.document(), reply.served_by

        document, served_by = with_retries(ask, self.patience)
        predictions = document.get("predictions") if isinstance(document, dict) else None
        if not isinstance(predictions, list) or not predictions or not isinstance(predictions[0], dict):
            raise BadAnswer(
                "the endpoint does not describe itself; is it an archive of marquee's?", status=200
            )
        return predictions[0], served_by

    def exchange(self, body: dict[str, Any], seconds: float) -> Reply:
        """One request, one answer of any status. Raises ServerUnreachable and BadAnswer."""
        url = f"https://{self.host}/v1/{self.name}:rawPredict"
        try:
            answer = post(self.web, url, encoded(body), seconds, MOST_ANSWER_BYTES)
        except ServerUnreachable as error:
            # The endpoint exists, so a refused connection may work in a moment: it is tried again.
            raise ServerUnreachable(str(error), error.cure) from None
        served_by = answer.headers.get("X-Vertex-AI-Deployed-Model-Id", "")
        return Reply(answer.status, answer.content.decode("utf-8", "replace"), answer.headers, served_by)


def check_size(size: int, dedicated: bool) -> None:
    """Raises PayloadTooLarge for a body of more bytes than such an endpoint takes."""
    most = table().limits(dedicated).request_bytes
    if size > most:
        kind = "dedicated" if dedicated else "shared"
        larger = "" if dedicated else ", or use a dedicated endpoint, which takes 10 MB"
        raise PayloadTooLarge(
            f"the request has {size:,} bytes; a {kind} endpoint of Vertex AI takes at most {most:,}",
            f"send smaller pictures, such as jpeg, or fewer instances{larger}",
        )


def token_auth(credentials: Any, local_origin: str = "") -> Callable[[httpx.Request], httpx.Request]:
    """An httpx ``auth`` that puts a fresh token of google-auth's credentials on each request.

    Only on those that go over TLS to Google or this machine, or to ``local_origin``, a local cloud's address,
    such as ``http://127.0.0.1:8443``: raises MarqueeError for any other host.
    """
    from google.auth.transport.requests import Request

    def authorize(request: httpx.Request) -> httpx.Request:
        origin = f"{request.url.scheme}://{request.url.netloc.decode()}"
        over_tls = request.url.scheme == "https" and _TOKEN_HOSTS.fullmatch(request.url.host)
        if not over_tls and origin != local_origin:
            where = f"{request.url.scheme}://{request.url.host}"
            raise MarqueeError(
                f"{where} is not a host of Google, so the token is not sent there",
                "check region and endpoint",
            )
        headers: dict[str, str] = {}
        credentials.before_request(Request(), request.method, str(request.url), headers)
        request.headers.update(headers)
        return request

    return authorize
