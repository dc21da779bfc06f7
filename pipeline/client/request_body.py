"""The body of a predict request: plain JSON, its randomness made explicit before it leaves."""

from __future__ import annotations

import json
import math
import numbers
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.client.errors import InvalidRequest, Problem

Instance = Mapping[str, Any]

# The contract's seeds (handler/contract/fields.py): whole numbers below 2 ** 64, from 2 ** 53 on no floats.
_SEEDS_END = 2**64
_EXACT_END = 2**53
_MOST_DEPTH = 8
_MOST_BITS = 1024


# More pictures than any server draws for one instance: such a number is sent for the server to refuse.
_MOST_PICTURES = 1024


@dataclass(frozen=True)
class Asked:
    """What an instance asks for: a picture for each of ``seeds``, in this format and size in pixels.

    A seed is None where it is not a valid one; format, width and height are None where the server chooses.
    """

    seeds: tuple[int | None, ...] = (None,)
    format: str | None = None
    width: int | None = None
    height: int | None = None


def request_body(instances: Sequence[Instance | str], parameters: Instance | None = None) -> dict[str, Any]:
    """``{"instances", "parameters"}`` with the seed of each instance's first picture in it.

    An instance's own seed counts, else the one of ``parameters`` for every such instance; null in
    the one that counts, or none at all, asks for a random one, which is drawn here. So sending the request
    again draws the same pictures: a retry is safe. Numbers of other libraries (numpy's) become plain ones.
    Raises InvalidRequest with every value that JSON cannot hold.
    """
    problems: list[Problem] = []
    if isinstance(instances, (str, bytes, Mapping)) or not isinstance(instances, Sequence):
        raise InvalidRequest('instances must be a list, such as ["a red circle"] or [{"prompt": "..."}]')
    common = _fields(None, {} if parameters is None else parameters, problems)
    whole = [_fields(index, _unwrap(one), problems) for index, one in enumerate(instances)]
    if problems:
        raise InvalidRequest(problems[0].message, tuple(problems))
    return {"instances": [_with_seed(instance, common) for instance in whole], "parameters": common}


def encoded(body: Mapping[str, Any]) -> bytes:
    """A body as it travels."""
    return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def asked_pictures(body: Mapping[str, Any]) -> list[Asked]:
    """What each instance of a body asks for; its own fields count before the parameters."""
    return [_asked({**body["parameters"], **instance}) for instance in body["instances"]]


def sent_seeds(body: Mapping[str, Any]) -> list[int | None]:
    """The seed of each picture that a body asks for, in order; None where it is not a valid seed."""
    return [seed for asked in asked_pictures(body) for seed in asked.seeds]


def _asked(fields: Mapping[str, Any]) -> Asked:
    width, height = (_as_whole(fields.get(name)) for name in ("width", "height"))
    format_name = fields.get("output_format")
    format_name = format_name if isinstance(format_name, str) else None
    return Asked(_seeds(fields), format_name, width, height)


def _seeds(fields: Mapping[str, Any]) -> tuple[int | None, ...]:
    """The handler's (handler/contract/instance.py): s, s + 1 and so on, and 0 after the largest."""
    first, count = _as_seed(fields.get("seed")), _as_whole(fields.get("num_images_per_prompt", 1))
    if count is None or not 1 <= count <= _MOST_PICTURES:  # the server refuses it
        count = 1
    return tuple(None if first is None else (first + number) % _SEEDS_END for number in range(count))


def _as_whole(value: Any) -> int | None:
    """The whole number that the handler reads from a value; None for one that it refuses."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
        return None
    return int(value)


def _unwrap(instance: Any) -> Any:
    """As the handler reads it: a bare string is a prompt, and {"data": X} is X (Vertex's batch lines)."""
    if isinstance(instance, Mapping) and instance.keys() == {"data"}:
        instance = instance["data"]
    return {"prompt": instance} if isinstance(instance, str) else instance


def _with_seed(instance: dict[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    if "describe" in instance:
        return instance
    seed = instance["seed"] if "seed" in instance else parameters.get("seed")
    if seed is None:
        return {**instance, "seed": secrets.randbelow(2**32)}
    # A wrong seed in the parameters is not copied into the instances: the server then reports it once.
    return instance if "seed" in instance or _as_seed(seed) is None else {**instance, "seed": seed}


def _as_seed(value: Any) -> int | None:
    """The seed that the handler reads from a value; None for one that it refuses."""
    if isinstance(value, str) and re.fullmatch("[0-9]{1,20}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if isinstance(value, float) and not (value.is_integer() and value < _EXACT_END):
        return None
    return int(value) if 0 <= value < _SEEDS_END else None


def _fields(index: int | None, given: Any, problems: list[Problem]) -> dict[str, Any]:
    """An object's fields as plain JSON values; what cannot be one is added to ``problems``."""
    where = "parameters" if index is None else f"instance {index}"
    if not isinstance(given, Mapping):
        kind = type(given).__name__
        problems.append(
            Problem(index, None, f"{where} must be an object of fields, not a value of type {kind}")
        )
        return {}
    fields: dict[str, Any] = {}
    for name, value in given.items():
        try:
            fields[_key(name)] = _plain(value, _MOST_DEPTH)
        except ValueError as error:
            problems.append(Problem(index, str(name), f"{where}: {str(name)[:80]!r} {error}", _shown(value)))
    return fields


def _shown(value: Any) -> str:
    return repr(value)[:80] if isinstance(value, (str, bytes, float)) else f"a {type(value).__name__}"


def _key(name: Any) -> str:
    # json writes 1 and "1" alike, which would make one key twice.
    if not isinstance(name, str):
        raise ValueError(f"is a field's name of type {type(name).__name__}; names are strings")
    return _text(name)


def _plain(value: Any, depth: int) -> Any:
    """The value in JSON's own types; raises ValueError with words that follow the field's name."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, numbers.Real):
        return _number(value)
    if depth and isinstance(value, Mapping):
        return {_key(name): _plain(inner, depth - 1) for name, inner in value.items()}
    if depth and isinstance(value, (list, tuple)):
        return [_plain(inner, depth - 1) for inner in value]
    if not depth:
        raise ValueError("is nested too deeply")
    raise ValueError(f"is a value of type {type(value).__name__}, which JSON cannot hold")


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"is no valid Unicode at character {error.start}") from None
    return str(value)


def _number(value: Any) -> int | float:
    number = int(value) if isinstance(value, numbers.Integral) else float(value)
    if isinstance(number, int) and number.bit_length() > _MOST_BITS:
        raise ValueError(f"is a whole number of {number.bit_length()} bits, far out of range")
    if not math.isfinite(number):
        raise ValueError(f"is {number}; it must be a finite number")
    return number
