"""Google's exceptions become MarqueeError, with the cure of the rule that Google's text comes from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import MarqueeError
from pipeline.rules import Rule, table


class Unanswered(MarqueeError):
    """Google did not answer, or another run is at work. Nothing has failed: operations go on in the cloud."""


@contextmanager
def translating_google_errors(doing: str) -> Iterator[None]:
    """Translate the exceptions of Google's clients; ``doing`` names the step ("registering the model")."""
    from google.api_core.exceptions import (
        Aborted,
        AlreadyExists,
        GatewayTimeout,
        GoogleAPICallError,
        RetryError,
        ServiceUnavailable,
    )
    from google.auth.exceptions import GoogleAuthError, TransportError
    from requests.exceptions import ConnectionError as RequestsConnectionError

    again = "run it again: it continues where it stopped"
    try:
        yield
    except (ServiceUnavailable, GatewayTimeout, RetryError, TransportError, RequestsConnectionError) as error:
        raise Unanswered(f"{doing}: Google did not answer: {error}", cure=again) from error
    except (AlreadyExists, Aborted) as error:
        cure = "run it again when the other run has ended"
        raise Unanswered(f"{doing}: another run is at work: {error.message}", cure=cure) from error
    except GoogleAPICallError as error:
        rule = rule_of(error.message)
        raise MarqueeError(
            f"{doing}: Google says {_status(error)}: {error.message}", cure=_cure(rule)
        ) from error
    except GoogleAuthError as error:
        if error.retryable:
            raise Unanswered(
                f"{doing}: the credentials cannot be renewed now: {error}", cure=again
            ) from error
        raise MarqueeError(
            f"{doing}: the credentials are not accepted: {error}",
            cure="gcloud auth application-default login",
        ) from error


def rule_of(message: str) -> Rule | None:
    """The rule whose text this message is, whatever values the message has in the rule's placeholders."""
    for rule in table().rules.values():
        parts = re.split(r"\{\w+\}", rule.text.replace("{{", "{").replace("}}", "}"))
        if re.search(".+?".join(re.escape(part) for part in parts), message, re.DOTALL):
            return rule
    return None


def _cure(rule: Rule | None) -> str | None:
    """The rule's cure, unless it has placeholders: their values are not known from Google's message."""
    return rule.cure if rule and "{" not in rule.cure else None


def _status(error: object) -> str:
    code = getattr(error, "grpc_status_code", None)
    return code.name if code else str(getattr(error, "code", "error"))
