"""The client of a Vertex AI endpoint: rawPredict keeps numbers exact and names who answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from pipeline.client.answers import error_inside, error_of
from pipeline.client.errors import BadAnswer, ServerUnreachable
from pipeline.client.predictions import Prediction, parse_predictions
from pipeline.client.request_body import Instance, request_body, sent_seeds
from pipeline.client.retries import Patience, with_retries

CONNECT_SECONDS = 10.0
# A model that scales up from zero answers 429 for minutes, and every request meanwhile is dropped.
PATIENCE = Patience(deadline_seconds=600.0, attempts=30)


@dataclass(frozen=True)
class Reply:
    """What an endpoint answered, and the deployed model it came from (empty when none was reached)."""

    status: int
    text: str
    headers: httpx.Headers
    served_by: str

    def document(self) -> Any:
        """The answer's JSON; raises the PredictionError that its status stands for."""
        if self.status != 200:
            raise error_of(self.status, self.text, self.headers)
        try:
            document = httpx.Response(200, text=self.text).json()
        except ValueError as error:
            raise BadAnswer(f"the answer is no JSON: {self.text[:80]!r}", status=200) from error
        if failure := error_inside(document, self.text, self.headers):
            raise failure
        return document


@dataclass(frozen=True)
class VertexEndpoint:
    """An endpoint by its host and resource name (projects/P/locations/R/endpoints/E).

    ``web`` carries the credentials and stays the caller's to close; ``of`` makes one of the SDK's Endpoint.
    """

    web: httpx.Client
    host: str
    name: str
    patience: Patience = PATIENCE

    @classmethod
    def of(
        cls, endpoint: Any, web: httpx.Client | None = None, patience: Patience = PATIENCE
    ) -> VertexEndpoint:
        """The endpoint behind an ``aiplatform.Endpoint``, asked with that object's own credentials."""
        resource = endpoint.gca_resource
        dedicated = resource.dedicated_endpoint_dns if resource.dedicated_endpoint_enabled else ""
        host = dedicated or f"{endpoint.location}-aiplatform.googleapis.com"
        web = web or httpx.Client(auth=token_auth(endpoint.credentials))
        return cls(web, host, endpoint.resource_name, patience)

    def predict(
        self, instances: Sequence[Instance | str], parameters: Instance | None = None
    ) -> list[Prediction]:
        """One checked picture per instance, in order; see ``pipeline.client.Client.predict``."""
        body = request_body(instances, parameters)
        document = with_retries(lambda seconds: self.exchange(body, seconds).document(), self.patience)
        return parse_predictions(document, sent_seeds(body))

    def describe(self) -> tuple[dict[str, Any], str]:
        """What the model that answers says of itself, and its deployed model id."""
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
        """One request, one answer of any status. Raises ServerUnreachable."""
        timeout = httpx.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))
        url = f"https://{self.host}/v1/{self.name}:rawPredict"
        try:
            answer = self.web.post(url, json=body, timeout=timeout)
        except httpx.TimeoutException as error:
            raise ServerUnreachable(f"{self.host} gave no answer within {seconds:.0f} s") from error
        except httpx.TransportError as error:
            raise ServerUnreachable(f"{self.host} cannot be reached ({error})") from error
        served_by = answer.headers.get("X-Vertex-AI-Deployed-Model-Id", "")
        return Reply(answer.status_code, answer.text, answer.headers, served_by)


def token_auth(credentials: Any) -> Callable[[httpx.Request], httpx.Request]:
    """An httpx ``auth`` that puts a fresh token of google-auth's credentials on each request."""
    from google.auth.transport.requests import Request

    def authorize(request: httpx.Request) -> httpx.Request:
        headers: dict[str, str] = {}
        credentials.before_request(Request(), request.method, str(request.url), headers)
        request.headers.update(headers)
        return request

    return authorize
