"""The request contract: a body in, checked Jobs or every problem with it out. Torch-free and pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Union

from handler.contract.body import Repeating, read_json, why_unreadable
from handler.contract.fields import ALIASES, OF_THE_REQUEST, PICTURES, Read, readers
from handler.contract.instance import make_jobs, settle
from handler.contract.job import Job
from handler.contract.problem import (
    MAX_PROBLEMS,
    FieldError,
    Problem,
    Refusal,
    brief,
    hidden,
    invalid_request,
    nearest,
)
from handler.contract.rules import UNREAD, broken_rules
from handler.contract.settings import Settings

NO_BODY = "the request has no body that the server could read; send JSON with Content-Type: application/json"


@dataclass(frozen=True)
class Describe:
    """An instance that asks what this archive is instead of asking for a picture."""


@dataclass(frozen=True)
class Pictures:
    """An instance that asks for pictures: a job for each, in order."""

    jobs: tuple[Job, ...]


Item = Union[Pictures, Describe]


@dataclass(frozen=True)
class Request:
    """A request that can be served: one item per instance, in the caller's order.

    ``bare`` requests are answered with their only prediction, outside {"predictions": [...]}. ``stream``:
    events are to be sent before the answer (docs/events.md).
    """

    items: tuple[Item, ...]
    bare: bool = False
    stream: bool = False

    @property
    def jobs(self) -> tuple[Job, ...]:
        """All that is to be drawn, in the order in which ``reply`` takes the outcomes."""
        return tuple(job for item in self.items if isinstance(item, Pictures) for job in item.jobs)


def parse_row(row: Any, settings: Settings, draw_seed: Callable[[], int]) -> Request | Refusal:
    """Parse one request as TorchServe hands it over: a mapping whose "body" is bytes, text or parsed JSON.

    The form fields of a multipart body come as "data". ``draw_seed`` gives seeds that the request lacks.
    """
    body = row
    if isinstance(row, Mapping) and not ({"instances", "parameters"} & row.keys()):
        body = row.get("body", row.get("data"))
    if body is None or (isinstance(body, (Mapping, bytes, bytearray, str)) and not body):
        return _refuse_body(None, NO_BODY)
    return parse_body(body, settings, draw_seed)


def parse_body(body: Any, settings: Settings, draw_seed: Callable[[], int]) -> Request | Refusal:
    """Parse {"instances": [...], "parameters": {...}}, as JSON bytes, JSON text or already parsed."""
    if isinstance(body, (bytes, bytearray, str)):
        try:
            body = read_json(body, settings.limits)
        except (ValueError, RecursionError) as error:
            return _refuse_body(None, f"the body is not JSON: {why_unreadable(error)}")
    if isinstance(body, Refusal):
        return body
    if not isinstance(body, Mapping):
        return _refuse_body(body, 'the body must be a JSON object: {"instances": [...], "parameters": {...}}')
    if "prompt" in body and "instances" not in body:
        return _refuse_body(None, 'instances is missing; wrap it: {"instances": [{"prompt": ...}]}')
    return _Parser(settings, draw_seed).parse(body)


class _Parser:
    """One request's parse: readers for its limits and the problems met so far."""

    def __init__(self, settings: Settings, draw_seed: Callable[[], int]) -> None:
        self._settings = settings
        self._draw_seed = draw_seed
        self._readers: Mapping[str, Read] = readers(settings)
        self._problems: list[Problem] = []

    def parse(self, body: Mapping[str, Any]) -> Request | Refusal:
        self._refuse_repeated(None, body)
        self._refuse_unknown(None, body, ("instances", "parameters", *OF_THE_REQUEST))
        parameters = self._parameters(body.get("parameters"))
        beside = self._fields(None, {name: body[name] for name in OF_THE_REQUEST if name in body})
        stream = {**parameters, **beside}.get("stream") is True
        parameters = {name: value for name, value in parameters.items() if name not in OF_THE_REQUEST}
        items = [
            self._item(index, instance, parameters)
            for index, instance in enumerate(self._instances(body.get("instances")))
        ]
        self._check_number([item for item in items if isinstance(item, Pictures)])
        if self._problems:
            return invalid_request(self._problems)
        return Request(tuple(item for item in items if item is not None), stream=stream)

    def _parameters(self, value: Any) -> Mapping[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self._add(None, "parameters", value, "an object", "parameters must be an object")
            return {}
        self._refuse_repeated(None, value)
        return self._fields(None, value)

    def _instances(self, value: Any) -> list[Any]:
        most = self._settings.limits.max_instances
        allowed = f"a list of 1 to {most} objects"
        if not isinstance(value, list):
            message = f"instances must be {allowed}" + ("" if value is not None else "; it is missing")
        elif not 1 <= len(value) <= most:
            message = f"instances has {len(value)} entries; it must be {allowed}"
        else:
            return value
        self._add(None, "instances", value, allowed, message)
        return []

    def _item(self, index: int, instance: Any, parameters: Mapping[str, Any]) -> Item | None:
        given = _unwrap(instance)
        for level in (instance, given) if given is not instance else (instance,):
            self._refuse_repeated(index, level)
        if not isinstance(given, Mapping):
            allowed = 'an object such as {"prompt": "..."}, or the prompt as a string'
            self._add(index, "instance", given, allowed, f"instance {index} must be {allowed}")
            return None
        if "describe" in given:
            return self._describe(index, given)
        own = self._fields(index, given)
        if "prompt" not in given and "prompt" not in parameters:
            self._add(index, "prompt", None, "a non-empty string", f"instance {index} has no prompt")
        settled = settle(self._settings, parameters, own)
        for broken in broken_rules(settled.values, settled.own_size, self._settings.limits):
            self._add(index, *broken)
        if self._problems:
            # Something of the parameters or of an earlier instance may be wrong: nothing is drawn then.
            return None
        return Pictures(make_jobs(settled, self._draw_seed))

    def _check_number(self, items: Sequence[Pictures]) -> None:
        """A request's pictures are drawn together, so there are at most as many as it may have instances."""
        pictures, most = sum(len(item.jobs) for item in items), self._settings.limits.max_instances
        if pictures > most:
            allowed = f"at most {most} pictures in all instances of a request together"
            message = f"num_images_per_prompt asks for {pictures} pictures; allowed are {allowed}"
            self._add(None, "num_images_per_prompt", pictures, allowed, message)

    def _describe(self, index: int, given: Mapping[str, Any]) -> Describe | None:
        if given["describe"] is True and len(given) == 1:
            return Describe()
        allowed = 'true, alone: {"describe": true}'
        self._add(index, "describe", given["describe"], allowed, f"describe must be {allowed}")
        return None

    def _fields(self, instance: int | None, given: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of an object, read; those that are wrong become problems and are UNREAD."""
        beside = () if instance is None else OF_THE_REQUEST
        self._refuse_unknown(instance, given, tuple(name for name in self._readers if name not in beside))
        values = {}
        for name, read in self._readers.items():
            if name in given:
                try:
                    values[name] = read(given[name])
                except FieldError as error:
                    values[name] = UNREAD
                    echo = hidden(given[name]) if name in PICTURES else given[name]
                    self._add(instance, name, echo, error.allowed, str(error), error.did_you_mean)
        return values

    def _refuse_repeated(self, instance: int | None, given: Any) -> None:
        """JSON keeps the last value of a key given twice, which may not be the one that was meant."""
        repeated = given.repeated.items() if isinstance(given, Repeating) else ()
        for name, count in islice(repeated, MAX_PROBLEMS):
            message = f"{brief(name)} is given {count} times in one object"
            self._add(instance, name, given[name], "each key once in an object", message)

    def _refuse_unknown(self, instance: int | None, given: Mapping[str, Any], known: tuple[str, ...]) -> None:
        unknown = (name for name in given if name not in known)
        for name in islice(unknown, MAX_PROBLEMS):  # looking for the nearest name takes time
            guess = ALIASES.get(name.lower())
            if guess not in known:
                guess = nearest(name, known) if len(self._problems) < MAX_PROBLEMS else None
            message = f"unknown field {brief(name)}" + (f"; did you mean {guess}?" if guess else "")
            message = f'{name} belongs beside "instances"' if name in OF_THE_REQUEST else message
            self._add(instance, name, given[name], f"fields: {', '.join(known)}", message, guess)

    def _add(
        self,
        instance: int | None,
        field: str,
        value: Any,
        allowed: str,
        message: str,
        did_you_mean: str | None = None,
    ) -> None:
        self._problems.append(Problem(instance, field, value, allowed, message, did_you_mean))


def _unwrap(instance: Any) -> Any:
    """A bare string is a prompt, and {"data": X} is X: Vertex batch prediction wraps lines so."""
    if isinstance(instance, Mapping) and instance.keys() == {"data"}:
        instance = instance["data"]
    return {"prompt": instance} if isinstance(instance, str) else instance


def _refuse_body(value: Any, message: str) -> Refusal:
    return invalid_request([Problem(None, "body", value, 'a JSON object with "instances"', message)])
