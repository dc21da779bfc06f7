"""The client of a TorchServe that serves an archive of ours, on this machine or behind any plain HTTP."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import httpx

from pipeline.client.answers import error_inside, error_of
from pipeline.client.errors import BadAnswer, ServerUnreachable
from pipeline.client.predictions import Prediction, parse_predictions
from pipeline.client.request_body import Instance, request_body, sent_seeds
from pipeline.client.retries import Patience, with_retries
from pipeline.errors import MarqueeError

CONNECT_SECONDS = 10.0


class Client:
    """Asks ``{url}/predictions/{model_name}``; a ``with`` block closes its connections.

    Raises MarqueeError for a ``url`` that is none.
    """

    def __init__(self, url: str, model_name: str = "model", patience: Patience | None = None) -> None:
        host = _host(url)
        self.url = url.rstrip("/")
        self.predict_url = f"{self.url}/predictions/{model_name}"
        self._patience = patience or Patience()
        # No proxy that the environment names can reach this machine's own loopback.
        self._http = httpx.Client(trust_env=not _is_loopback(host))

    def predict(
        self, instances: Sequence[Instance | str], parameters: Instance | None = None
    ) -> list[Prediction]:
        """One checked picture per instance (a dict of fields, or just a prompt), in order.

        Missing seeds are drawn here, so a busy or dying server is asked again without changing the pictures.
        Raises a PredictionError.
        """
        body = request_body(instances, parameters)
        answer = with_retries(lambda seconds: self._post(body, seconds), self._patience)
        return parse_predictions(answer, sent_seeds(body))

    def describe(self) -> dict[str, Any]:
        """What the server says it is: versions, device, digests, limits, defaults, schedulers."""
        body = {"instances": [{"describe": True}]}
        answer = with_retries(lambda seconds: self._post(body, seconds), self._patience)
        predictions = answer.get("predictions") if isinstance(answer, dict) else None
        if not isinstance(predictions, list) or not predictions or not isinstance(predictions[0], dict):
            raise BadAnswer("the server does not describe itself", status=200)
        return predictions[0]

    def _post(self, body: dict[str, Any], seconds: float) -> Any:
        timeout = httpx.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))
        try:
            answer = self._http.post(self.predict_url, json=body, timeout=timeout)
        except httpx.ConnectError as error:
            cure = "start one: marquee serve"
            raise ServerUnreachable(f"no server listens at {self.url}", cure, refused=True) from error
        except httpx.TimeoutException as error:
            raise ServerUnreachable(f"{self.url} gave no answer within {seconds:.0f} s") from error
        except httpx.TransportError as error:
            raise ServerUnreachable(f"{self.url} broke off the connection ({error!r})") from error
        if answer.status_code != 200:
            raise error_of(answer.status_code, answer.text, answer.headers)
        try:
            document = answer.json()
        except ValueError as error:
            raise BadAnswer(f"the answer is no JSON: {answer.text[:80]!r}", status=200) from error
        if failure := error_inside(document, answer.text, answer.headers):
            raise failure
        return document

    def close(self) -> None:
        """Close the connections that are kept for the next request."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _host(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL()
    # httpx writes a blank in a host as %20 and takes any number for a port.
    is_web = parsed.scheme in ("http", "https") and parsed.host and "%20" not in parsed.host
    if not is_web or not 0 <= (parsed.port or 0) < 2**16:
        raise MarqueeError(f"{url!r} is no server's address", "write it like http://127.0.0.1:8080")
    return parsed.host


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
