"""Turns broken rules of the shared table, and faults that are set, into refusals."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date
from typing import Any

from pipeline.cloud.clock import Clock
from pipeline.cloud.faults import FaultBook
from pipeline.cloud.vertex.calls import Call, Handler
from pipeline.cloud.vertex.failures import ServiceFailure
from pipeline.rules import Violation, table

_NAMES = ("parent", "name", "endpoint")  # the fields that say which resource a request is about


def enforce(violations: Iterable[Violation]) -> None:
    """Refuse with the first violation that Google refuses; rules that only the doctor checks are skipped."""
    for violation in violations:
        if violation.rule.enforced:
            raise ServiceFailure(violation.code, violation.message)


def failure_of(rule_id: str, field: str, value: object, **facts: object) -> ServiceFailure:
    """The refusal with the text of a rule."""
    violation = table().violation(rule_id, field, value, **facts)
    return ServiceFailure(violation.code, violation.message)


def today(clock: Clock) -> date:
    return clock.now().date()


def with_faults(key: str, handler: Handler, faults: FaultBook, describe: Callable[[Any], str]) -> Handler:
    """The handler of ``Service.Method``, refusing first when a fault is set for ``METHOD/DISPLAY NAME``."""
    method = key.rpartition(".")[2]

    def answer(request: Any, call: Call) -> Any:
        target = f"{method}/{describe(request)}"
        if faults.take("permission-denied", target) is not None:
            where = next(
                (str(getattr(request, field)) for field in _NAMES if getattr(request, field, "")), target
            )
            verb = method[0].lower() + method[1:]
            raise failure_of("permission", method, f"aiplatform.{verb}", where=where)
        if faults.take("unavailable", target) is not None:
            raise ServiceFailure("UNAVAILABLE", "The service is currently unavailable.")
        return handler(request, call)

    return answer
