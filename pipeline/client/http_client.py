"""The client of a TorchServe that serves an archive of ours, on this machine or behind any plain HTTP."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Sequence
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx

from pipeline.client.answers import document_of
from pipeline.client.errors import BadAnswer, ServerUnreachable
from pipeline.client.exchange import post
from pipeline.client.predictions import Prediction, parse_predictions
from pipeline.client.request_body import Instance, asked_pictures, encoded, request_body
from pipeline.client.retries import Patience, with_retries
from pipeline.errors import MarqueeError

# What `marquee serve` lets through (max_response_size in pipeline/serving/settings.py); TorchServe's own
# default is 6,553,500 bytes.
MOST_ANSWER_BYTES = 64 << 20


class Client:
    """Asks ``{url}/predictions/{model_name}``; a ``with`` block closes its connections.

    Raises MarqueeError for a ``url`` that is none, and for a proxy of the environment that cannot be used.
    An answer of more than ``most_answer_bytes`` is refused.
    """

    def __init__(
        self,
        url: str,
        model_name: str = "model",
        patience: Patience | None = None,
        most_answer_bytes: int = MOST_ANSWER_BYTES,
    ) -> None:
        parsed = _parse(url)
        self.url = str(parsed.copy_with(userinfo=b"")).rstrip("/")  # named in errors, so without a password
        self.predict_url = f"{self.url}/predictions/{quote(model_name, safe='')}"
        self._patience = patience or Patience()
        self._most_answer_bytes = most_answer_bytes
        self._http = _web(parsed)

    def predict(
        self, instances: Sequence[Instance | str], parameters: Instance | None = None
    ) -> list[Prediction]:
        """The checked pictures of each instance (a dict of fields, or just a prompt), in order.

        One picture for each instance, or as many as its ``num_images_per_prompt`` asks for, which have the
        seeds s, s + 1 and so on.
        Missing seeds are drawn here, so a busy or dying server is asked again without changing the pictures.
        Raises a PredictionError.
        """
        body = request_body(instances, parameters)
        content = encoded(body)
        answer = with_retries(lambda seconds: self._post(content, seconds), self._patience)
        return parse_predictions(answer, asked_pictures(body))

    def describe(self) -> dict[str, Any]:
        """What the server says it is: versions, device, digests, limits, defaults, schedulers."""
        content = encoded({"instances": [{"describe": True}]})
        answer = with_retries(lambda seconds: self._post(content, seconds), self._patience)
        predictions = answer.get("predictions") if isinstance(answer, dict) else None
        if not isinstance(predictions, list) or not predictions or not isinstance(predictions[0], dict):
            raise BadAnswer("the server does not describe itself", status=200)
        return predictions[0]

    def _post(self, content: bytes, seconds: float) -> Any:
        try:
            answer = post(self._http, self.predict_url, content, seconds, self._most_answer_bytes)
        except ServerUnreachable as error:
            if not error.refused:
                raise
            cure = "start one: marquee serve"
            raise ServerUnreachable(f"no server listens at {self.url}", cure, refused=True) from None
        return document_of(answer)

    def close(self) -> None:
        """Close what is still open."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _parse(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError):
        parsed = httpx.URL()
    # httpx writes a blank in a host as %20 and takes any number for a port.
    is_web = parsed.scheme in ("http", "https") and parsed.host and "%20" not in parsed.host
    if not is_web or not 0 <= (parsed.port or 0) < 2**16 or parsed.query or parsed.fragment:
        raise MarqueeError(f"{url[:200]!r} is no server's address", "write it like http://127.0.0.1:8080")
    return parsed


def _web(url: httpx.URL) -> httpx.Client:
    auth = httpx.BasicAuth(url.username, url.password) if url.userinfo else None
    # No proxy that the environment names can reach this machine's own loopback.
    trust_env = not _is_loopback(url.host)
    # Plain HTTP without a proxy needs no certificates, which take a tenth of a second to load: trust none.
    verify = True if trust_env or url.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        return httpx.Client(trust_env=trust_env, auth=auth, verify=verify)
    except (ValueError, ImportError, OSError, httpx.InvalidURL) as error:
        raise MarqueeError(
            f"the environment's proxy or certificates cannot be used: {error}",
            "correct or unset HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE and SSL_CERT_DIR",
        ) from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
