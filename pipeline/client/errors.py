"""The errors of a prediction.

PredictionError           of any kind; ``status`` is the HTTP status, or None where there was no answer
  InvalidRequest          400: the request is wrong; ``problems`` lists every mistake
  PayloadTooLarge         413: the request or its answer exceeds a limit
  ServerBusy              429, 503: overloaded, draining or not ready; trying again later may help
  ServerFailed            any other status, 500 and 507 (the worker died) among them
  ServerUnreachable       no connection, or no answer in time
  BadAnswer               200, but without the requested pictures
  PictureWithheld         200, and the server's safety checker has flagged the picture, so it is not sent
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.errors import MarqueeError


@dataclass(frozen=True)
class Problem:
    """One mistake in a request; ``instance`` is its index, None for the parameters or the body as a whole."""

    instance: int | None
    field: str | None
    message: str
    value: Any = None
    allowed: str | None = None
    did_you_mean: str | None = None


class PredictionError(MarqueeError):
    """The request brought no picture."""

    def __init__(self, message: str, cure: str | None = None, status: int | None = None) -> None:
        super().__init__(message, cure)
        self.status = status

    @property
    def retryable(self) -> bool:
        """Whether the very same request may succeed in a moment."""
        return False


class InvalidRequest(PredictionError):
    """The server refused the request as wrong, with the list of all its mistakes."""

    def __init__(self, message: str, problems: tuple[Problem, ...] = ()) -> None:
        many = [f"{len(problems)} problems with the request", *(f"  - {one.message}" for one in problems)]
        super().__init__("\n".join(many) if len(problems) > 1 else message, status=400)
        self.problems = problems


class PayloadTooLarge(PredictionError):
    """The request, or the pictures it asks for, do not fit through the server."""


class ServerBusy(PredictionError):
    """The server has no room now; ``retry_after``: the seconds that it asks to wait."""

    def __init__(self, message: str, status: int, retry_after: float | None = None) -> None:
        super().__init__(message, "try again in a moment", status)
        self.retry_after = retry_after

    @property
    def retryable(self) -> bool:
        return True


class ServerFailed(PredictionError):
    """The server met an error of its own, or does not serve this model (404)."""

    @property
    def retryable(self) -> bool:
        # 504 means that it took too long; the same request would take as long again.
        return self.status is None or (self.status >= 500 and self.status != 504)


class ServerUnreachable(PredictionError):
    """No server answered. A lost connection is worth another try, a refused one (``refused``) is not."""

    def __init__(self, message: str, cure: str | None = None, refused: bool = False) -> None:
        super().__init__(message, cure)
        self.refused = refused

    @property
    def retryable(self) -> bool:
        return not self.refused


class PictureWithheld(PredictionError):
    """The server's safety checker flagged the picture, and its archive sends no flagged picture."""

    def __init__(self, named: str = "the picture") -> None:
        super().__init__(
            f"{named} is withheld: the server's safety checker flagged it",
            "ask for another seed or another prompt",
            status=200,
        )


class BadAnswer(PredictionError):
    """The answer has status 200, but breaks the contract."""
